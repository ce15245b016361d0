"""Compress images.

  fa-hific compress photo.jpg                  writes photo.fahj beside it
  fa-hific compress photo.jpg -o small.fahj    the same, under another name
  fa-hific compress photos/ -o compressed/     all images below photos/, in the same folders
  fa-hific compress 'photos/**/*.png' --jobs 4
  fa-hific compress photo.jpg --quality 0.8    of a model with a choice of rates: larger, better
  fa-hific compress photo.jpg --bpp 0.3        the best quality with at most 0.3 bits per pixel
  fa-hific compress - < photo.jpg > small.fahj standard input and output; -o - is the latter too

Any image that Pillow reads will do: it is turned upright and converted to sRGB with 8 bits;
of an animation the first frame counts. Transparency is kept without loss; camera, place and date
(EXIF, XMP) are left out unless --keep-metadata is given. A file that is there is not overwritten
without --force; --skip-existing writes only what is not there yet. What cannot be compressed is
named at the end, after all else is done.

exit codes:
  0  all images were compressed
  1  some were not, the last lines say which and why
  2  the command itself was wrong; nothing was written
"""

import argparse
from pathlib import Path

from fa_hific_jax.cli import batch, files, runtime, values
from fa_hific_jax.cli.progress import Progress
from fa_hific_jax.data import image_names
from fa_hific_jax.errors import UserError
from fa_hific_jax.writing import write as write_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    batch.add_arguments(
        parser,
        inputs="image, folder (searched below for images), glob, or - for standard input",
        output=f"file for a single image, - for standard output, else a folder; without, "
        f"NAME{files.COMPRESSED} beside each image, and standard output for standard input",
    )
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument(
        "--quality",
        type=values.share,
        metavar="Q",
        help="from 0, the smallest file, to 1 (0.5), if the model has a choice of rates",
    )
    rate.add_argument(
        "--bpp",
        type=values.positive,
        metavar="RATE",
        help="bits per pixel: of each image the highest quality whose file is no larger, or the "
        "smallest file where none is; takes about twice the time",
    )
    parser.add_argument("--drop-alpha", action="store_true", help="lay transparent images on white")
    parser.add_argument(
        "--keep-metadata",
        action="store_true",
        help="keep EXIF and XMP (camera, place, date, rights) in the file; decompress writes them",
    )
    parser.add_argument(
        "--coder",
        choices=("constriction", "tfc"),
        default="constriction",
        help="entropy coder; tfc needs the extra fa-hific-jax[tfc], also to decompress",
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="compute in the network's own precision: faster, and every device decompresses the "
        "file all the same, but another device would have written slightly other bytes",
    )


def run(args: argparse.Namespace) -> None:
    """Compresses all inputs; exits with 1 after naming those that failed."""
    found, unread = files.find(args.inputs, image_names.suffixes())
    jobs = files.pair(args.inputs, found, args.output, files.COMPRESSED)
    every = jobs
    jobs = files.check_targets(every, args.force, args.skip_existing)
    unread.extend(files.not_whole(every, jobs))
    _check_names(jobs)
    if not jobs:
        batch.end(unread)
        return
    name = runtime.model_to_use(args.model)
    with runtime.orderly(), files.open_streams(jobs) as contents:
        from fa_hific_jax.codec import metadata
        from fa_hific_jax.codec.model_folder import load_model
        from fa_hific_jax.codec.pixels import on_white, read_image

        runtime.use_compile_cache()
        model = load_model(name)
        if (args.quality, args.bpp) != (None, None) and not model.config.qualities:
            raise UserError(
                f"{name}: has a single rate: leave --quality and --bpp out, or take a model that "
                "was trained with model.qualities"
            )
        sizes = _sizes([job.source for job in jobs], contents)
        plan = model.plan(list(sizes.values()))
        pixels = {path: height * width for path, (height, width) in sizes.items()}
        with Progress(len(jobs), sum(pixels.values())) as progress:

            def read(job):
                with files.opened(job.source, contents) as file:
                    picture = read_image(file, keep_metadata=args.keep_metadata)
                for note in picture.notes:
                    progress.say(f"note: {job.source}: {note}")
                kept = metadata.pack(picture.metadata)
                if args.drop_alpha:
                    return job, on_white(picture), None, kept
                return job, picture.rgb, picture.alpha, kept

            def work(picture):
                job, rgb, alpha, kept = picture
                options = {"coder": args.coder, "reproducible": not args.fast, "mode": args.mode}
                quality = args.quality
                if args.bpp is not None:
                    quality = model.quality_for(
                        rgb, args.bpp, alpha=alpha, reserved=metadata.room(kept), **options
                    )
                data = model.compress(rgb, quality=quality, alpha=alpha, plan=plan, **options)
                data = metadata.attach(data, kept) if kept else data
                rate = 8 * len(data) / (rgb.shape[0] * rgb.shape[1])
                if args.bpp is not None and rate > args.bpp:
                    progress.say(
                        f"note: {job.source}: its smallest file has {rate:.3g} bits per pixel"
                    )
                return data

            def write(job, data):
                with files.leaving_existing(args.skip_existing):
                    write_file(job.target, data, replace=args.force)

            failures = batch.run(jobs, pixels, (read, work, write), args.jobs, progress)
    batch.end([*unread, *failures])


def _check_names(jobs: list[files.Job]) -> None:
    for job in jobs:
        if files.has_image_suffix(job.target):
            raise UserError(
                f"{job.target}: is the name of an image, but the file can be opened by fa-hific "
                f"alone: choose a name that ends in {files.COMPRESSED}"
            )


def _sizes(paths: list[Path], contents: files.Contents) -> dict[Path, tuple[int, int]]:
    """Height and width of each image; those without a readable header are left to fail later."""
    from fa_hific_jax.codec.pixels import image_size

    sizes = {}
    for path in paths:
        try:
            with files.opened(path, contents) as file:
                sizes[path] = image_size(file)
        except (UserError, OSError):
            continue
    return sizes
