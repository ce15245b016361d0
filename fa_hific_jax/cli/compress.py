"""`fa-hific compress`."""

import argparse
from collections.abc import Callable

from fa_hific_jax.cli import arguments, batch, files
from fa_hific_jax.codec import SUFFIX
from fa_hific_jax.data import image_names
from fa_hific_jax.errors import UserError
from fa_hific_jax.writing import write as write_file


def compress(parser: argparse.ArgumentParser) -> arguments.Run:
    """Compress images.

      fa-hific compress photo.jpg                  write photo.fahj beside it
      fa-hific compress photo.jpg -o small.fahj    the same, under another name
      fa-hific compress photos/ -o compressed/     all images below photos/, in the same subfolders
      fa-hific compress 'photos/**/*.png' --jobs 4
      fa-hific compress photo.jpg --quality 0.8    a larger file that looks better (default: 0.5)
      fa-hific compress photo.jpg --bpp 0.3        the best quality with at most 0.3 bits per pixel
      fa-hific compress - < photo.jpg > small.fahj from standard input to standard output

    Every image that Pillow can open is accepted. It is turned upright and converted to 8-bit sRGB.
    Of an animation, only the first frame is used. Transparency is kept without loss. Metadata such
    as camera, place and date (EXIF, XMP) is dropped unless --keep-metadata is given.

    Existing files are never overwritten without --force. With --skip-existing, they are kept and
    only missing files are written. Images that cannot be compressed are named at the end, after all
    others are done.

    --quality and --bpp need a model that was trained for several rates (model.qualities). With the
    name of a family of published models, as in --model msillm --bpp 0.2, each image is compressed
    with the fetched model of the highest rate that fits (`fa-hific models` lists them).
    """
    arguments.add_files(
        parser,
        "image, folder (searched for images at any depth), glob, or - for standard input",
        "file to write for a single image, folder for several, or - for standard output; default: "
        f"NAME{SUFFIX} beside each image, or standard output if the image comes from standard "
        "input",
    )
    arguments.add_coding(parser)
    arguments.add_rate(parser)
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
    return _run


def _run(args: argparse.Namespace) -> None:
    jobs, unread = files.plan_jobs(args, image_names.suffixes(), SUFFIX)
    for job in jobs:
        if files.has_image_suffix(job.target):
            raise UserError(
                f"{job.target}: is the name of an image, but only fa-hific can open the file: "
                f"choose a name that ends in {SUFFIX}"
            )
    batch.code(args, jobs, unread, _steps)


def _steps(args: argparse.Namespace, say: Callable[[str], None]) -> batch.Steps:
    from fa_hific_jax.codec import metadata
    from fa_hific_jax.data.images import image_size, on_white, read_image

    _, model, compress = batch.model_at_rate(args)
    options = {"coder": args.coder, "reproducible": not args.fast, "mode": args.mode}

    def read(job, file):
        picture = read_image(file, keep_metadata=args.keep_metadata)
        for note in picture.notes:
            say(f"note: {job.source}: {note}")
        kept = metadata.pack(picture.metadata)
        if args.drop_alpha:
            return job, on_white(picture), None, kept
        return job, picture.rgb, picture.alpha, kept

    def work(picture, plan):
        job, rgb, alpha, kept = picture
        data, member = compress(
            rgb, alpha=alpha, reserved=metadata.room(kept), plan=plan, **options
        )
        data = metadata.attach(data, kept) if kept else data
        rate = 8 * len(data) / (rgb.shape[0] * rgb.shape[1])
        if member:
            say(f"{job.source}: {rate:.3g} bits per pixel with {member}")
        if args.bpp is not None and rate > args.bpp:
            say(f"note: {job.source}: the smallest possible file has {rate:.3g} bits per pixel")
        return data

    def write(job, data):
        write_file(job.target, data, replace=args.force)

    return batch.Steps(model.plan, image_size, read, work, write)
