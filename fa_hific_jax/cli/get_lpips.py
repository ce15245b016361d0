"""Get LPIPS weights that do not come with the package.

The package has the weights of AlexNet and SqueezeNet, with kernels of 16 bits. This command is for
VGG16, and for those who want the published float32 weights.

Downloads the published weights, checks their SHA-256, converts them to one .npz and
prints its path. It stays in the cache folder ($XDG_CACHE_HOME/fa-hific or
~/.cache/fa-hific), and a second call downloads nothing.

  fa-hific get-lpips                       AlexNet: the usual metric, and HiFiC's loss
  fa-hific get-lpips --net vgg -o vgg.npz  VGG16, to a place of your own
  python eval.py --workdir runs/hific --images kodak/ --lpips alex,vgg.npz

An interrupted download goes on when the command is given again. Without a network, the
command says what to download elsewhere; --from then converts it:

  fa-hific get-lpips --from Downloads/
"""

import argparse
import pathlib

from fa_hific_jax.cli import files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "--net",
        choices=("alex", "squeeze", "vgg"),
        default="alex",
        help="network: AlexNet (the default; downloads 244 MB, keeps 10), SqueezeNet 1.1 "
        "(5 MB, keeps 3) or VGG16 (553 MB, keeps 59)",
    )
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
        help="convert the published files in this folder instead of downloading them",
    )


def run(args: argparse.Namespace) -> None:
    """Prints the path of the .npz; raises a UserError where there is none to be had."""
    from fa_hific_jax.convert.lpips_weights import get_lpips

    print(get_lpips(args.net, *(p and pathlib.Path(p) for p in (args.output, args.folder))))
