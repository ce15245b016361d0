"""`fa-hific plot`: the curves of a training run."""

import argparse
import io
from collections.abc import Mapping
from typing import Any

from fa_hific_jax.cli import arguments
from fa_hific_jax.errors import UserError
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
    return _run


def _run(args: argparse.Namespace) -> None:
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
