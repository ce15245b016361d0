"""`fa-hific decompress`."""

import argparse
import os
from pathlib import Path
from typing import Any

from fa_hific_jax.cli import arguments, batch, files
from fa_hific_jax.codec import SUFFIX
from fa_hific_jax.errors import UserError
from fa_hific_jax.streams import is_stream


def decompress(parser: argparse.ArgumentParser) -> arguments.Run:
    """Decompress files that `fa-hific compress` wrote.

      fa-hific decompress photo.fahj                 write photo.png beside it
      fa-hific decompress photo.fahj -o photo.jpg    as JPEG; .webp and .tif work too
      fa-hific decompress compressed/ -o images/     all .fahj files below compressed/, as PNG
      fa-hific decompress photo.fahj --detail 0      without the detail that the decoder adds
      fa-hific decompress - < photo.fahj > photo.png from standard input to standard output

    Each file states its model. Without --model, and without FA_HIFIC_MODEL in the environment, it
    is looked up among the models with a name on this machine (`fa-hific models`).

    Metadata in the file is written into the image. A TIFF with metadata is written uncompressed.

    Existing files are never overwritten without --force. With --skip-existing, they are kept and
    only missing files are written. NAME.png beside NAME.fahj may be your original image: --force
    overwrites it only if this command wrote it, or if -o names it. Files that are damaged or were
    made with another model are named at the end, after all others are done.
    """
    arguments.add_files(
        parser,
        f"compressed file, folder (searched for {SUFFIX} files at any depth), glob, or - for "
        "standard input",
        "image to write (.png, .jpg, .webp or .tif) for a single file, folder for several, or - "
        "for standard output (PNG); default: NAME.png beside each file, or standard output if the "
        "file comes from standard input",
    )
    arguments.add_coding(parser)
    parser.add_argument(
        "--detail",
        type=arguments.share,
        metavar="S",
        help="share of the detail from the frequency complement modules, from 0 (none: closest to "
        "the pixels of the original) to 1 (all: closest to its spectrum; the default)",
    )
    return _run


def _run(args: argparse.Namespace) -> None:
    jobs, unread = files.plan_jobs(args, frozenset({SUFFIX}), ".png")
    _check_names(jobs, args.output)
    batch.code(args, jobs, unread, _steps)


def _steps(args: argparse.Namespace, say: Any) -> batch.Steps:
    """Returns the steps with --model; without one, with the models that have a name here."""
    from fa_hific_jax.codec import bitstream, metadata, several, shipped
    from fa_hific_jax.codec.model_folder import load_model
    from fa_hific_jax.codec.pixels import write_image
    from fa_hific_jax.data.images import Picture, on_white

    name = shipped.chosen_model(args.model)
    if name is None or shipped.members_of(name):
        model = several.Models()
    else:
        model = load_model(name)
        if args.detail is not None and not model.config.fcm_width:
            raise UserError(
                f"{name}: this model has no frequency complement modules: omit --detail, or use a "
                "model that was trained with model.fcm_width"
            )

    def size(file):
        container = bitstream.unpack(file.read())
        return container.height, container.width

    def read(job, file):
        return file.read()

    def work(data, plan):
        options = {"detail": args.detail, "mode": args.mode, "plan": plan}
        return *model.decompress_picture(data, **options), metadata.of(data)

    def write(job, picture):
        rgb, alpha, kept = picture
        if args.drop_alpha:
            rgb, alpha = on_white(Picture(rgb, alpha)), None
        write_image(job.target, rgb, alpha, kept, replace=args.force)

    return batch.Steps(model.plan, size, read, work, write)


def _check_names(jobs: list[files.Job], output: str | None) -> None:
    """Raises a UserError for a target that has no image format or may be the original image.

    NAME.png beside NAME.fahj is usually the image that was compressed. It may be overwritten only
    if this codec wrote it, or if -o names it.
    """
    from fa_hific_jax.codec.pixels import check_image_name, is_decoded

    for source, target in jobs:
        check_image_name(target)
        beside = os.path.realpath(target.parent) == os.path.realpath(source.parent)
        named = output is not None and target == Path(output)
        if not beside or named or is_stream(target) or not os.path.isfile(target):
            continue
        if not is_decoded(target):
            raise UserError(
                f"{target}: may be the original image, because fa-hific did not write it, so it is "
                f"not overwritten: give another -o, or -o {target} to overwrite it"
            )
