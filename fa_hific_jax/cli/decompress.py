"""Decompress files that `fa-hific compress` wrote.

  fa-hific decompress photo.fahj                 writes photo.png beside it
  fa-hific decompress photo.fahj -o photo.jpg    as JPEG; also .webp and .tif
  fa-hific decompress compressed/ -o images/     all .fahj files below compressed/, as PNG
  fa-hific decompress photo.fahj --detail 0      without the detail that the decoder adds
  fa-hific decompress - < photo.fahj > photo.png standard input and output; -o - is the latter too

Metadata that compress kept are written into the image; a TIFF with metadata is not compressed. A
file that is there is not overwritten without --force; --skip-existing writes only what is not
there yet. NAME.png beside NAME.fahj may be the original: --force overwrites it only where this
command wrote it, or where -o names it. Files that are damaged or were made with another model are
named at the end, after all else is done.

exit codes:
  0  all files were decompressed
  1  some were not, the last lines say which and why
  2  the command itself was wrong; nothing was written
"""

import argparse
import os
from pathlib import Path

from fa_hific_jax.cli import batch, files, runtime, values
from fa_hific_jax.cli.progress import Progress
from fa_hific_jax.errors import UserError
from fa_hific_jax.streams import is_stream


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    batch.add_arguments(
        parser,
        inputs=f"compressed file, folder (searched below for {files.COMPRESSED}), glob, or - for "
        "standard input",
        output="image (.png, .jpg, .webp, .tif) for a single file, - for standard output (PNG), "
        "else a folder; without, NAME.png beside each file, and standard output for standard input",
    )
    parser.add_argument(
        "--detail",
        type=values.share,
        metavar="S",
        help="how much of what the frequency complement modules add, from 0 (nearest to the "
        "original's pixels) to 1 (the default, nearest to its spectrum)",
    )
    parser.add_argument("--drop-alpha", action="store_true", help="lay transparent images on white")


def run(args: argparse.Namespace) -> None:
    """Decompresses all inputs; exits with 1 after naming those that failed."""
    found, unread = files.find(args.inputs, files.COMPRESSED_SUFFIXES)
    jobs = files.pair(args.inputs, found, args.output, ".png")
    every = jobs
    jobs = files.check_targets(every, args.force, args.skip_existing)
    unread.extend(files.not_whole(every, jobs))
    _check_names(jobs, args.output)
    if not jobs:
        batch.end(unread)
        return
    name = runtime.model_to_use(args.model)
    with runtime.orderly(), files.open_streams(jobs) as contents:
        from fa_hific_jax.codec import metadata
        from fa_hific_jax.codec.model_folder import load_model
        from fa_hific_jax.codec.pixels import Picture, on_white, write_image

        runtime.use_compile_cache()
        model = load_model(name)
        if args.detail is not None and not model.config.fcm_width:
            raise UserError(
                f"{name}: has no frequency complement modules: leave --detail out, or take a "
                "model that was trained with model.fcm_width"
            )
        sizes = _sizes([job.source for job in jobs], contents)
        plan = model.plan(list(sizes.values()))
        pixels = {path: height * width for path, (height, width) in sizes.items()}

        def read(job):
            with files.opened(job.source, contents) as file:
                return file.read()

        def work(data):
            options = {"detail": args.detail, "mode": args.mode, "plan": plan}
            return *model.decompress_picture(data, **options), metadata.of(data)

        def write(job, picture):
            rgb, alpha, kept = picture
            if args.drop_alpha:
                rgb, alpha = on_white(Picture(rgb, alpha)), None
            with files.leaving_existing(args.skip_existing):
                write_image(job.target, rgb, alpha, kept, replace=args.force)

        with Progress(len(jobs), sum(pixels.values())) as progress:
            failures = batch.run(jobs, pixels, (read, work, write), args.jobs, progress)
    batch.end([*unread, *failures])


def _check_names(jobs: list[files.Job], output: str | None) -> None:
    """Raises a UserError for a target of no image format, or one that may be the original.

    NAME.png beside NAME.fahj is usually what was compressed. It is overwritten where this codec
    wrote it, or where -o names it.
    """
    from fa_hific_jax.codec.pixels import check_image_name, is_decoded

    for job in jobs:
        check_image_name(job.target)
        if is_stream(job.target):
            continue
        beside = os.path.realpath(job.target.parent) == os.path.realpath(job.source.parent)
        named = output is not None and job.target == Path(output)
        if beside and not named and os.path.isfile(job.target) and not is_decoded(job.target):
            raise UserError(
                f"{job.target}: may be the original, as it is no image that fa-hific decompressed, "
                f"so it is not overwritten: give another -o, or -o {job.target} for this one"
            )


def _sizes(paths: list[Path], contents: files.Contents) -> dict[Path, tuple[int, int]]:
    """Height and width of each image; those without a readable header are left to fail later."""
    from fa_hific_jax.codec.bitstream import unpack

    sizes = {}
    for path in paths:
        try:
            with files.opened(path, contents) as file:
                container = unpack(file.read())
        except (UserError, OSError):
            continue
        sizes[path] = container.height, container.width
    return sizes
