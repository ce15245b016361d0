"""Get the weights that FID and KID need.

  fa-hific get-inception
  fa-hific get-inception -o inception.npz

Downloads the published weights of FID's Inception network (96 MB), checks their SHA-256, converts
them to one .npz file (87 MB) and prints its path. The file stays in the cache folder
($XDG_CACHE_HOME/fa-hific or ~/.cache/fa-hific), so a second call downloads nothing.

To resume an interrupted download, repeat the command. Without a network, the command says which
file to download elsewhere; --from then converts it:

  fa-hific get-inception --from Downloads/
"""

import argparse

from fa_hific_jax.cli.arguments import add_weights as add_arguments  # noqa: F401


def run(args: argparse.Namespace) -> None:
    """Prints the path of the .npz file; raises a UserError if the weights cannot be had."""
    from fa_hific_jax.convert.inception_weights import get_inception

    print(get_inception(args.output, args.folder))
