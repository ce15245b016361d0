"""The commands on compressed files: `compress`, `decompress` and `info`."""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fa_hific_jax import interrupts
from fa_hific_jax.cli import arguments, batch, files
from fa_hific_jax.codec import SUFFIX
from fa_hific_jax.data import image_names
from fa_hific_jax.errors import PER_FILE, UserError, about, shown
from fa_hific_jax.streams import is_stream
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

    Every image that Pillow can open is turned upright and converted to 8-bit sRGB; of an animation,
    the first frame. Transparency is kept without loss. Images that cannot be compressed are named
    at the end. --quality and --bpp need a model that was trained for several rates, or --bpp the
    name of a family of published models: --model msillm --bpp 0.2.
    """
    what = f"file, folder for several images, or - (default: NAME{SUFFIX} beside each image)"
    arguments.add_files(parser, arguments.IMAGES, what)
    arguments.add_coding(parser)
    arguments.add_rate(parser)
    add, coders = parser.add_argument, ("constriction", "tfc")
    what = "store EXIF and XMP (camera, place, date, rights); decompress writes them back"
    add("--keep-metadata", action="store_true", help=what)
    what = "entropy coder (default: constriction); tfc needs the extra fa-hific-jax[tfc]"
    add("--coder", choices=coders, default=coders[0], help=what)
    what = "compute in the network's own precision instead of float64: bytes depend on the device"
    add("--fast", action="store_true", help=what)
    return _compress


def _compress(args: argparse.Namespace) -> None:
    jobs, unread = files.plan_jobs(args, image_names.suffixes(), SUFFIX)
    for job in jobs:
        if image_names.is_any_image(job.target):
            raise UserError(
                f"{job.target}: is the name of an image, but only fa-hific can open the file: "
                f"choose a name that ends in {SUFFIX}"
            )
    batch.code(args, jobs, unread, _compressing)


def _compressing(args: argparse.Namespace, say: Callable[[str], None]) -> batch.Steps:
    from fa_hific_jax.codec import metadata
    from fa_hific_jax.data.images import image_size, on_white, read_image

    _, model, compress = batch.model_at_rate(args)
    options = {"coder": args.coder, "reproducible": not args.fast, "mode": args.mode}

    def read(job, file):
        picture = read_image(file, keep_metadata=args.keep_metadata)
        for note in picture.notes:
            say(f"note: {job.source}: {note}")
        rgb, alpha = picture.rgb, picture.alpha
        if args.drop_alpha:
            rgb, alpha = on_white(picture), None
        return job, rgb, alpha, metadata.pack(picture.metadata)

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


def decompress(parser: argparse.ArgumentParser) -> arguments.Run:
    """Decompress files that `fa-hific compress` wrote.

      fa-hific decompress photo.fahj                 write photo.png beside it
      fa-hific decompress photo.fahj -o photo.jpg    as JPEG; .webp and .tif work too
      fa-hific decompress compressed/ -o images/     all .fahj files below compressed/, as PNG
      fa-hific decompress photo.fahj --detail 0      without the detail that the decoder adds
      fa-hific decompress - < photo.fahj > photo.png from standard input to standard output

    Each file states its model. Without --model, and without FA_HIFIC_MODEL in the environment, it
    is looked up among the models with a name on this machine (`fa-hific models`). Metadata in the
    file is written into the image. Damaged files and those of other models are named at the end.

    NAME.png beside NAME.fahj may be your original image: --force overwrites it only if this command
    wrote it, or if -o names it.
    """
    what = f"compressed file, folder (searched for {SUFFIX} files at any depth), glob, or -"
    out = "image (.png, .jpg, .webp, .tif), folder for several, or - (default: NAME.png beside it)"
    arguments.add_files(parser, what, out)
    arguments.add_coding(parser)
    what = "detail from the frequency complement modules, from 0 (none) to 1 (all, the default)"
    parser.add_argument("--detail", type=arguments.share, metavar="S", help=what)
    return _decompress


def _decompress(args: argparse.Namespace) -> None:
    jobs, unread = files.plan_jobs(args, frozenset({SUFFIX}), ".png")
    _check_names(jobs, args.output)
    batch.code(args, jobs, unread, _decompressing)


def _decompressing(args: argparse.Namespace, say: Callable[[str], None]) -> batch.Steps:
    """Returns the steps with --model; without one, with the models that have a name here."""
    from fa_hific_jax.codec import bitstream, metadata, several, shipped
    from fa_hific_jax.codec.model_folder import load_model
    from fa_hific_jax.codec.pixels import write_image
    from fa_hific_jax.data.images import Picture, on_white

    del say  # There are no notes.
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

    def work(data, plan):
        options = {"detail": args.detail, "mode": args.mode, "plan": plan}
        return *model.decompress_picture(data, **options), metadata.of(data)

    def write(job, picture):
        rgb, alpha, kept = picture
        if args.drop_alpha:
            rgb, alpha = on_white(Picture(rgb, alpha)), None
        write_image(job.target, rgb, alpha, kept, replace=args.force)

    return batch.Steps(model.plan, size, lambda _, file: file.read(), work, write)


def _check_names(jobs: list[files.Job], output: str | None) -> None:
    """Raises a UserError for a target that has no image format or may be the original image."""
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


def info(parser: argparse.ArgumentParser) -> arguments.Run:
    """Show what compressed files contain, without a model.

      fa-hific info photo.fahj
      fa-hific info compressed/ --json

    Prints for each file the size of the image, bits per pixel, the bytes of each part, and the id
    of the model that made it, with its name if `fa-hific models` lists it as being on this machine.
    Each file is checked against its checksum.
    """
    arguments.add_inputs(parser, "FILE", "compressed file, folder, or glob")
    parser.add_argument("--json", action="store_true", help="print a JSON array of descriptions")
    return _info


def _info(args: argparse.Namespace) -> None:
    found, failures = files.find(args.inputs, frozenset({SUFFIX}))
    described = []
    for file in found:
        interrupts.end_if_asked()
        try:
            described.append(_description(file.path))
        except PER_FILE as error:
            failures.append(about(file.path, error))
            continue
        if not args.json:
            print(_text(described[-1]))
    if args.json:
        print(json.dumps(described, indent=2))
    batch.end(failures)


def _description(path: Path) -> dict[str, Any]:
    from fa_hific_jax.codec import bitstream, shipped

    data = path.read_bytes()
    held = bitstream.unpack(data)
    parts = {"z": held.z_stream, "y": held.y_stream, "alpha": held.alpha_stream}
    sizes = {name: len(stream) for name, stream in parts.items()}
    return {
        "file": str(path),
        "width": held.width,
        "height": held.height,
        "alpha": bool(held.alpha_stream),
        "bpp": 8 * len(data) / (held.width * held.height),
        "quality": None if held.quality is None else held.quality / (bitstream.QUALITIES - 1),
        "model_id": held.model_id.hex(),
        "model": shipped.with_id(held.model_id),
        "version": bitstream.VERSION,
        "coder": held.coder,
        "symbols_crc": f"{held.symbols_crc:08x}",
        "bytes": {"file": len(data), "header": len(data) - sum(sizes.values()), **sizes},
    }


def _text(told: dict[str, Any]) -> str:
    """Returns the lines that are printed for a description without --json."""
    whole, *parts = told["bytes"].items()
    alpha = ", with transparency" * told["alpha"]
    quality = "" if told["quality"] is None else f", quality {told['quality']:.3f}"
    lines = [
        ("image", f"{told['width']} x {told['height']} pixels{alpha}"),
        ("file", f"{whole[1]} bytes, {told['bpp']:.4f} bpp{quality}"),
        ("model", told["model_id"] + (f" ({told['model']})" if told["model"] else "")),
        ("format", f"version {told['version']}, coder {told['coder']}"),
        ("symbols", f"CRC-32 {told['symbols_crc']}"),
    ]
    width = len(str(whole[1]))
    lines += [(name, f"{size:>{width}} bytes, {size / whole[1]:6.2%}") for name, size in parts]
    return "\n".join([shown(told["file"]), *(f"  {name:<8}{text}" for name, text in lines)])
