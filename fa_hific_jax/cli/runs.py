"""The commands around training: `pack` makes its shards, `plot` draws its curves."""

import argparse
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fa_hific_jax import interrupts, streams
from fa_hific_jax.cli import arguments, batch, files
from fa_hific_jax.cli.progress import Progress
from fa_hific_jax.data import image_names
from fa_hific_jax.errors import UserError, reason, say, shown
from fa_hific_jax.writing import write

PANELS = {
    "loss": ("loss", "eval/loss"),
    "bits per pixel": ("bpp_rounded", "bpp_target", "eval/bpp"),
    "PSNR, dB": ("psnr", "eval/psnr"),
    "weight of the rate": ("lambda_rate",),
    "LPIPS": ("lpips",),
    "focal frequency loss": ("ffl",),
    "dynamic spectrum loss": ("dsl",),
    "adversarial losses": ("gan_generator", "gan_discriminator"),
    "gradient norm": ("grad_norm",),
    "images per second": ("speed/images_per_second",),
    "time waiting for data": ("speed/waiting_for_data",),
}
LOGARITHMIC = ("loss", "gradient norm", "weight of the rate")

_SHOWN = 10  # damaged files that are named on the terminal


def pack(parser: argparse.ArgumentParser) -> arguments.Run:
    """Pack images into shards for training.

      fa-hific pack /data/openimages -o /data/packed --shards 64
      fa-hific pack 'photos/**/*.jpg' more/ -o packed --shards 16 --min-side 256 --max-side 2048
      python train.py --config configs/hific.py:lo --workdir runs/hific \\
          --config.data.train="('arrayrecord:packed',)"

    Writes ArrayRecord shards: a few large files, which training can read quickly in any order. A
    good size is 100 to 1000 MB. JPEG, PNG and WebP files are stored unchanged, other kinds as PNG,
    and images that --max-side shrinks as JPEG of quality 95 or PNG. Damaged files, which
    manifest.json names, and images below --min-side are left out. The same command resumes a run
    that was stopped.
    """
    arguments.add_inputs(parser, "IMAGES", "image, folder (searched at any depth), or glob")
    arguments.add_folder(parser, "DIR", "folder to write the shards to")
    add, number = parser.add_argument, {"type": int, "default": 0}
    add("--shards", metavar="N", type=int, required=True, help="number of shards to write")
    what = "leave out images whose width or height is below S pixels"
    add("--min-side", metavar="S", help=what, **number)
    what = "shrink images whose width or height is above L pixels to L"
    add("--max-side", metavar="L", help=what, **number)
    what = "number of threads that read and check images (default: one for each processor)"
    processors = min(256, os.cpu_count() or 1)
    add("--jobs", type=arguments.threads, default=processors, metavar="J", help=what)
    return _pack


def _pack(args: argparse.Namespace) -> None:
    found, unread = files.find(args.inputs, image_names.suffixes())
    from fa_hific_jax.data import pack

    sizes = {}
    for path in dict.fromkeys(str(file.path) for file in found):
        if streams.is_read_once(path):
            raise UserError(f"{shown(path)}: is a pipe, but packing reads only files: give a file")
        try:
            sizes[path] = os.path.getsize(path)
        except OSError as error:
            unread.append(reason(error))
    plan = pack.Plan(tuple(sizes), tuple(sizes.values()), args.shards, args.min_side, args.max_side)

    def advance(size: int) -> None:
        interrupts.end_if_asked()
        progress.advance(size // 3)

    # Progress takes pixels of 3 bytes each and shows MB/s; here they are those of the image files.
    with Progress(len(sizes), sum(size // 3 for size in sizes.values())) as progress:
        manifest = pack.pack(plan, Path(args.output), args.jobs, advance)
    damaged = pack.damaged(manifest)
    for sentence in damaged[:_SHOWN]:
        say(f"skipped {sentence}")
    if len(damaged) > _SHOWN:
        say(f"and {len(damaged) - _SHOWN} more, see manifest.json")
    images, size = pack.total(manifest, "images"), pack.total(manifest, "bytes")
    print(
        f"{images} images, {size / 1e6:.1f} MB, in {plan.shards} shards; "
        f"left out: {len(damaged)} damaged, {pack.total(manifest, 'too_small')} too small"
    )
    if not images:
        raise UserError(
            f"{args.output}: holds no image, because all were damaged or too small: give others, "
            "or a smaller --min-side"
        )
    print(f"train with --config.data.train=\"('arrayrecord:{shown(args.output)}',)\"")
    batch.end(unread)


def plot(parser: argparse.ArgumentParser) -> arguments.Run:
    """Draw the curves of a training run.

      fa-hific plot runs/fa_hific_lo
      fa-hific plot runs/fa_hific_lo -o curves.png

    Reads RUNDIR/metrics.jsonl, during the run or after it. Each panel shows related curves: a
    training metric and the same metric on validation images (eval/), the rate with its target, or
    both sides of the adversarial loss.
    """
    name, what = arguments.path_name, "the --workdir of a training run"
    parser.add_argument("rundir", metavar="RUNDIR", type=name, help=what)
    what = "PNG file to write (default: RUNDIR/curves.png)"
    parser.add_argument("-o", "--output", metavar="FILE.png", type=name, help=what)
    return _plot


def _plot(args: argparse.Namespace) -> None:
    from etils import epath

    from fa_hific_jax.training.logs import read_scalars

    folder = epath.Path(args.rundir)
    target = epath.Path(args.output) if args.output else folder / "curves.png"
    if target.suffix.lower() != ".png":
        raise UserError(f"-o {target}: only PNG can be written: give a name that ends in .png")
    picture = io.BytesIO()
    draw(read_scalars(folder), folder.resolve().name).savefig(picture, format="png", dpi=120)
    if "://" not in str(target) and not target.parent.is_dir():
        # `write` would create a folder that a mistake in -o names.
        raise UserError(f"{target.parent}: no such folder: name another -o")
    write(target, picture.getvalue())
    print(target)


def draw(reports: Mapping[int, Mapping[str, float]], title: str) -> Any:
    """Returns a matplotlib figure of the PANELS for which `reports`, step -> values, have data."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("drawing needs matplotlib: pip install 'fa-hific-jax[eval]'") from error
    present = {name for values in reports.values() for name in values}
    panels = {heading: names for heading, names in PANELS.items() if present & {*names}}
    if not panels:
        raise UserError(
            "metrics.jsonl has none of the metrics that are drawn: give a folder of train.py"
        )
    rows = -(-len(panels) // 3)
    figure = Figure(figsize=(13, 3 * rows + 0.5), layout="constrained")
    figure.suptitle(title)
    for place, (heading, names) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, 3, place, title=heading, xlabel="step")
        drawn = [name for name in names if name in present]
        for name in drawn:
            points = [(step, values[name]) for step, values in reports.items() if name in values]
            marker = "o" if name.startswith("eval/") or len(points) == 1 else None
            axes.plot(*zip(*points, strict=True), marker=marker, ms=3, lw=1, label=name)
        axes.grid(alpha=0.3)
        if len(drawn) > 1:
            axes.legend(fontsize="small")
        if heading in LOGARITHMIC:
            axes.set_yscale("log")
    return figure
