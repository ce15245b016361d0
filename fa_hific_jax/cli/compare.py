"""`fa-hific compare`: this codec and others at the same size."""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path

from fa_hific_jax.cli import arguments, batch, files
from fa_hific_jax.data import image_names
from fa_hific_jax.errors import shown
from fa_hific_jax.streams import is_stream
from fa_hific_jax.writing import write as write_file

_SUFFIX = "_compare.png"


def compare(parser: argparse.ArgumentParser) -> arguments.Run:
    """Compare this codec with JPEG, WebP, AVIF and JPEG XL on your own images.

      fa-hific compare photo.jpg                write photo_compare.png and photo_compare.html here
      fa-hific compare photo.jpg --bpp 0.2      at the best quality with at most 0.2 bits per pixel
      fa-hific compare photo.jpg --zoom 400,120 enlarge what lies around x = 400, y = 120
      fa-hific compare photo.jpg -o small.png   write small.png and small.html
      fa-hific compare photos/ -o compared/     a picture and a page for each image below photos/

    Each codec makes a file of the size of this codec's, or the nearest that it can, and decodes it.
    The picture shows the original and each result, whole and enlarged where the original has most
    detail. The page, which loads nothing, shows any two with a divider between them. Both state
    size, bits per pixel, PSNR (higher is better) and LPIPS (AlexNet, lower is better). Transparent
    images are put on white. A codec that is not installed is left out, with a note.
    """
    what = f"picture, with the page beside it; folder for several; - (default: NAME{_SUFFIX} here)"
    arguments.add_files(parser, arguments.IMAGES, what)
    arguments.add_rate(parser)
    what = "pixel around which to enlarge, from the upper left corner; may be given several times"
    point = {"type": arguments.point, "metavar": "X,Y"}
    parser.add_argument("--zoom", action="append", default=[], help=what, **point)
    arguments.add_model(parser)
    arguments.add_force(parser)
    parser.set_defaults(jobs=2, skip_existing=False)
    return _run


def _run(args: argparse.Namespace) -> None:
    found, unread = files.find(args.inputs, image_names.suffixes())
    written: list[Path] = []
    try:
        batch.code(args, _jobs(args, found), unread, functools.partial(_steps, written))
    finally:
        for path in written:
            print(shown(path))


def _jobs(args: argparse.Namespace, found: list[files.Found]) -> list[files.Job]:
    """Returns each image with the picture to write; raises a UserError if that would do harm."""
    from fa_hific_jax.codec.pixels import check_image_name

    named = [f._replace(relative=f.relative.with_name(f.path.stem + _SUFFIX)) for f in found]
    jobs = files.pair(args.inputs, named, args.output or "./", ".png")
    for job in jobs:
        check_image_name(job.target)
    pages = [
        files.Job(j.source, j.target.with_suffix(".html")) for j in jobs if not is_stream(j.target)
    ]
    files.check_targets([*jobs, *pages], args.force)
    return jobs


def _steps(
    written: list[Path], args: argparse.Namespace, say: Callable[[str], None]
) -> batch.Steps:
    """Returns the steps, which append the files they write to `written`."""
    from fa_hific_jax.codec.pixels import write_image
    from fa_hific_jax.data.images import image_size, read_image
    from fa_hific_jax.demo import comparison
    from fa_hific_jax.evaluation import baselines
    from fa_hific_jax.metrics.weights import load_weights

    chosen, model, compress = batch.model_at_rate(args)
    weights = load_weights(["alex"])
    missing = {name: baselines.codec(name).missing() for name in comparison.CODECS}
    codecs = [name for name, reason in missing.items() if not reason]
    for name, reason in missing.items():
        if reason:
            say(f"note: {baselines.codec(name).label} is left out: {reason}")

    def read(job, file):
        original, notes = comparison.opaque(read_image(file))
        places = [comparison.place_at(original, *at) for at in args.zoom]
        return job, original, places or [comparison.most_detailed(original)], notes

    def work(given, plan):
        job, original, places, notes = given
        data, member = compress(original, plan=plan)
        decoded, _ = model.decompress_picture(data, plan=plan)
        versions, lacks = comparison.versions(
            original, data, decoded, member or shown(Path(chosen).name), codecs, weights
        )
        for note in (*notes, *lacks):
            say(f"note: {job.source}: {note}")
        picture = comparison.sheet(original, versions, places)
        title = shown(job.source.name)
        return picture, comparison.page(title, original, versions, places, lacks)

    def write(job, made):
        picture, page = made
        write_image(job.target, picture, replace=args.force)
        if not is_stream(job.target):
            beside = job.target.with_suffix(".html")
            write_file(beside, page, replace=args.force)
            written.extend([job.target, beside])

    return batch.Steps(model.plan, image_size, read, work, write)
