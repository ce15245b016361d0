"""Compress images.

  fa-hific compress photo.jpg                  write photo.fahj beside it
  fa-hific compress photo.jpg -o small.fahj    the same, under another name
  fa-hific compress photos/ -o compressed/     all images below photos/, in the same subfolders
  fa-hific compress 'photos/**/*.png' --jobs 4
  fa-hific compress photo.jpg --quality 0.8    a larger file that looks better (default: 0.5)
  fa-hific compress photo.jpg --bpp 0.3        the best quality with at most 0.3 bits per pixel
  fa-hific compress - < photo.jpg > small.fahj from standard input to standard output

Every image that Pillow can open is accepted. It is turned upright and converted to 8-bit sRGB. Of
an animation, only the first frame is used. Transparency is kept without loss. Metadata such as
camera, place and date (EXIF, XMP) is dropped unless --keep-metadata is given.

Existing files are never overwritten without --force. With --skip-existing, they are kept and only
missing files are written. Images that cannot be compressed are named at the end, after all others
are done.

--quality and --bpp need a model that was trained for several rates (model.qualities).

exit codes:
  0  all images were compressed
  1  some were not; the last lines say which and why
  2  the command itself was wrong; nothing was written
"""

import argparse

from fa_hific_jax.cli import batch, files, runtime
from fa_hific_jax.cli.progress import Progress
from fa_hific_jax.data import image_names
from fa_hific_jax.errors import UserError
from fa_hific_jax.writing import write as write_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    batch.add_arguments(
        parser,
        inputs="image, folder (searched for images at any depth), glob, or - for standard input",
        output="file to write for a single image, folder for several, or - for standard output; "
        f"default: NAME{files.COMPRESSED} beside each image, or standard output if the image comes "
        "from standard input",
    )
    batch.add_rate_arguments(parser)
    parser.add_argument(
        "--drop-alpha", action="store_true", help="put transparent images on a white background"
    )
    parser.add_argument(
        "--keep-metadata",
        action="store_true",
        help="store EXIF and XMP (camera, place, date, rights); decompress writes them back",
    )
    parser.add_argument(
        "--coder",
        choices=("constriction", "tfc"),
        default="constriction",
        help="entropy coder (default: constriction); tfc needs the extra fa-hific-jax[tfc], for "
        "decompress too",
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="compute in the network's own precision instead of float64; every device can still "
        "decompress the file, but another device may write slightly different bytes",
    )


def run(args: argparse.Namespace) -> None:
    """Compresses all inputs; exits with 1 after naming those that failed."""
    jobs, unread = batch.plan_jobs(args, image_names.suffixes(), files.COMPRESSED)
    for job in jobs:
        if files.has_image_suffix(job.target):
            raise UserError(
                f"{job.target}: is the name of an image, but only fa-hific can open the file: "
                f"choose a name that ends in {files.COMPRESSED}"
            )
    if not jobs:
        batch.end(unread)
        return
    name = runtime.model_to_use(args.model)
    with runtime.orderly(), files.open_streams(jobs) as contents:
        from fa_hific_jax.codec import metadata
        from fa_hific_jax.codec.model_folder import load_model
        from fa_hific_jax.data.images import image_size, on_white, read_image

        runtime.use_compile_cache()
        model = load_model(name)
        batch.check_rate(args, name, model.config.qualities)
        sizes = batch.image_sizes(jobs, contents, image_size)
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
                        f"note: {job.source}: the smallest possible file has {rate:.3g} bits per "
                        "pixel"
                    )
                return data

            def write(job, data):
                with files.leaving_existing(args.skip_existing):
                    write_file(job.target, data, replace=args.force)

            failures = batch.run(jobs, pixels, (read, work, write), args.jobs, progress)
    batch.end([*unread, *failures])
