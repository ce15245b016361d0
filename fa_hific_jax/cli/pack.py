"""`fa-hific pack`: images into shards."""

import argparse
import os
from pathlib import Path

from fa_hific_jax import interrupts, streams
from fa_hific_jax.cli import arguments, batch, files
from fa_hific_jax.cli.progress import Progress
from fa_hific_jax.data import image_names
from fa_hific_jax.errors import UserError, reason, say, shown

_SHOWN = 10  # damaged files that are named on the terminal


def pack(parser: argparse.ArgumentParser) -> arguments.Run:
    """Pack images into shards for training.

      fa-hific pack /data/openimages -o /data/packed --shards 64
      fa-hific pack 'photos/**/*.jpg' more/ -o packed --shards 16 --min-side 256 --max-side 2048
      python train.py --config configs/hific.py:lo --workdir runs/hific \\
          --config.data.train="('arrayrecord:packed',)"

    Writes ArrayRecord shards: a few large files, which training can read quickly in any order. A
    good size is 100 to 1000 MB. JPEG, PNG and WebP files are stored unchanged; other kinds become
    PNG. Images that --max-side shrinks are stored as JPEG of quality 95 if they were JPEG, else as
    PNG. Damaged files, which manifest.json names, and images below --min-side are left out.

    To resume a run that was stopped, repeat the same command.
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
    return _run


def _run(args: argparse.Namespace) -> None:
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
