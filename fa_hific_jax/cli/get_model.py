"""Fetch a model that another project publishes, ready to use under its name.

  fa-hific models                                  what there is, with sizes and licenses
  fa-hific get-model msillm-0.14
  fa-hific compress photo.jpg --model msillm-0.14

Downloads the published checkpoint, checks it, converts it without PyTorch and without running code
from it, makes the integer tables that coding needs, and stores the model in the cache folder
($XDG_CACHE_HOME/fa-hific or ~/.cache/fa-hific). The download is removed. Prints where the model
comes from, and what its license asks for.

The projects publish no SHA-256. That of the first file is recorded in the cache folder, and a later
file of the same name must have the same.

To resume an interrupted download, repeat the command. Without a network, download the file on
another machine; --from then converts it:

  fa-hific get-model msillm-0.14 --from Downloads/msillm_target_0.14bpp.ckpt
"""

import argparse

from fa_hific_jax.cli import arguments, runtime
from fa_hific_jax.codec import catalog, shipped
from fa_hific_jax.errors import UserError, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name that `fa-hific models` lists")
    parser.add_argument(
        "--from",
        dest="file",
        metavar="FILE",
        type=arguments.path,
        help="convert this published file instead of downloading it; it is not changed",
    )
    parser.add_argument(
        "--force", action="store_true", help="fetch the model again if it is there already"
    )


def run(args: argparse.Namespace) -> None:
    """Fetches the model and describes it; raises a UserError if it cannot be had."""
    published, folder = catalog.find(args.name), shipped.here().get(args.name)
    if folder and not (published and args.force):
        print(f"{args.name}: is there already: {folder}")
        return
    if published is None:
        raise UserError(f"{args.name}: no such model: choose one of {', '.join(shipped.known())}")
    with runtime.orderly():
        from fa_hific_jax.convert.published_models import get_model

        found = get_model(published, args.file, replace=args.force)
    if found.doubt:
        say(f"note: {args.name}: {found.doubt}")
    family = catalog.FAMILIES[published.family]
    known = "the first seen, recorded for later" if found.first else "as recorded the first time"
    size = sum(file.stat().st_size for file in found.folder.iterdir())
    print(f"{published.name}: model {found.model_id}, {size / 1e6:.1f} MB in {found.folder}")
    print(f"source: {family.project}, {published.url}")
    print(f"SHA-256: {found.sha256} ({known})")
    print(f"license: {family.license}: use it {family.terms}")
