"""Converts the published weights of LPIPS to one .npz file for each network.

Each .npz is made of two files: torchvision's network and PerceptualSimilarity's linear weights.
"""

import functools
from pathlib import Path

import numpy as np

from fa_hific_jax.convert.published import PublishedFile, Recipe, get_weights
from fa_hific_jax.convert.torch_file import read_torch_file
from fa_hific_jax.losses.lpips import expected_shapes, lpips_params

_TORCHVISION = "https://download.pytorch.org/models/"
# The URL names a commit, so that the files behind it cannot change.
_LINEAR = (
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/"
    "082bb24f84c091ea94de2867d34c4544f68e0963/lpips/weights/v0.1/"
)

# Torchvision's file, its hash, and the hash of the linear weights. The hashes of the linear weights
# were computed from the files of that commit. The hashes of torchvision's files are taken from
# other projects, which agree with each other and with the eight digits in the file names.
# Torchvision itself checks only these digits.
_NETWORKS = {
    "alex": (
        "alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    ),
    "squeeze": (
        "squeezenet1_1-b8a52dc0.pth",
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
    ),
    "vgg": (
        "vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    ),
}
SOURCES = {
    net: (
        PublishedFile(_TORCHVISION + file, network_hash),
        PublishedFile(f"{_LINEAR}{net}.pth", linear_hash),
    )
    for net, (file, network_hash, linear_hash) in _NETWORKS.items()
}
"""The published files of each network: torchvision's network, then the linear weights."""


def get_lpips(net: str, output: Path | None = None, folder: Path | None = None) -> Path:
    """Returns the path of an .npz of weights for `load_lpips`, which is made if it is missing.

    `net` is a key of SOURCES; see `get_weights` for the rest.
    """
    recipe = Recipe(
        name=f"lpips_{net}.npz",
        sources=SOURCES[net],
        convert=functools.partial(convert_lpips, net),
        shapes=expected_shapes(net),
        command=f"fa-hific get-lpips --net {net}",
    )
    return get_weights(recipe, output, folder)


def convert_lpips(net: str, network: Path, linear: Path) -> dict[str, np.ndarray]:
    """Returns the float32 arrays of the .npz that docs/lpips.md describes, with OIHW kernels.

    Args:
      net: a key of SOURCES.
      network: file of torchvision's state dict of the whole classifier.
      linear: file of PerceptualSimilarity's state dict of the linear layers, version 0.1.

    Raises:
      UserError: a file was not written by `torch.save`, or it lacks arrays of the right shape.
    """
    found = read_torch_file(network) | {
        # In a NetLinLayer the convolution comes second in `model`, after a dropout.
        name.replace(".model.1.", "."): array
        for name, array in read_torch_file(linear).items()
    }
    wanted = {name: found[name] for name in expected_shapes(net) if name in found}
    lpips_params(net, wanted, f"{network} with {linear}")
    # The arrays are copied because views would keep the files open, and Windows cannot remove open
    # files.
    return {name: np.array(array, np.float32) for name, array in wanted.items()}
