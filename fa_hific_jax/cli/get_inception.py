"""Get the weights that FID and KID need.

Downloads the published weights of FID's Inception (96 MB), checks their SHA-256, converts
them to one .npz (87 MB) and prints its path. It stays in the cache folder
($XDG_CACHE_HOME/fa-hific or ~/.cache/fa-hific), and a second call downloads nothing.

  fa-hific get-inception
  fa-hific get-inception -o inception.npz

An interrupted download goes on when the command is given again. Without a network, the
command says what to download elsewhere; --from then converts it:

  fa-hific get-inception --from Downloads/
"""

import argparse
import pathlib

from fa_hific_jax.cli import files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=files.path_name,
        help="where to put the .npz; without, it stays in the cache folder",
    )
    parser.add_argument(
        "--from",
        dest="folder",
        metavar="FOLDER",
        type=files.path_name,
        help="convert the published file in this folder instead of downloading it",
    )


def run(args: argparse.Namespace) -> None:
    """Prints the path of the .npz; raises a UserError where there is none to be had."""
    from fa_hific_jax.convert.inception_weights import get_inception

    print(get_inception(*(p and pathlib.Path(p) for p in (args.output, args.folder))))
