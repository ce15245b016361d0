"""Get LPIPS weights that are not part of the package.

  fa-hific get-lpips                       AlexNet: the usual metric, and HiFiC's loss
  fa-hific get-lpips --net vgg -o vgg.npz  VGG16, in a file of your choice
  python eval.py --workdir runs/hific --images kodak/ --lpips alex,vgg.npz

The package contains the weights of AlexNet and SqueezeNet with 16-bit kernels. This command gets
VGG16, or the published float32 weights of the other two.

It downloads the published weights, checks their SHA-256, converts them to one .npz file and prints
its path. The file stays in the cache folder ($XDG_CACHE_HOME/fa-hific or ~/.cache/fa-hific), so a
second call downloads nothing.

To resume an interrupted download, repeat the command. Without a network, the command says which
files to download elsewhere; --from then converts them:

  fa-hific get-lpips --from Downloads/
"""

import argparse

from fa_hific_jax.cli import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--net",
        choices=("alex", "squeeze", "vgg"),
        default="alex",
        help="network: AlexNet (the default; downloads 244 MB, keeps 10 MB), SqueezeNet 1.1 (5 MB, "
        "keeps 3 MB) or VGG16 (553 MB, keeps 59 MB)",
    )
    arguments.add_weights(parser)


def run(args: argparse.Namespace) -> None:
    """Prints the path of the .npz file; raises a UserError if the weights cannot be had."""
    from fa_hific_jax.convert.lpips_weights import get_lpips

    print(get_lpips(args.net, args.output, args.folder))
