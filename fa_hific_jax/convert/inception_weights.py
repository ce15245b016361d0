"""The weights of FID's Inception, from the file in which they are published to one .npz of ours."""

from pathlib import Path

import numpy as np

from fa_hific_jax.convert.published import Recipe, Source, get_weights
from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.weight_files import mistakes
from fa_hific_jax.metrics.inception import COMMAND, expected_shapes, load_inception

# TensorFlow's inception-2015-12-05.tgz as pytorch-fid converted it; torch-fidelity offers the same
# file. Its hash is recorded by many projects, in agreement with each other and with the eight
# digits in the name, which are all that pytorch-fid itself could check.
SOURCE = Source(
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)

_EPSILON = 1e-3  # of the batch norms


def get_inception(output: Path | None = None, folder: Path | None = None) -> Path:
    """Path of an .npz of weights for `load_inception`; as `published.get_weights`.

    Args:
      output: where the .npz is wanted, None for the cache.
      folder: holds the published file; None to download it.

    Raises:
      UserError: the file cannot be had, read or written, or has another hash.
    """
    recipe = Recipe("inception.npz", (SOURCE,), convert_inception, load_inception, COMMAND)
    return get_weights(recipe, output, folder)


def convert_inception(file: Path) -> dict[str, np.ndarray]:
    """The arrays of the .npz: kernels (out, in, height, width) and biases by layer, float32.

    Batch norms are folded into the convolution before them, computed in float64.

    Args:
      file: pytorch-fid's state dict.

    Raises:
      UserError: the file is no torch file or lacks arrays of the right shape.
    """
    from fa_hific_jax.convert.torch_file import read_torch_file

    found = read_torch_file(file)
    if wrong := mistakes(found, _published_shapes()):
        raise UserError(f"{file}: not the weights of FID's Inception: {wrong}; fetch it again")
    folded: dict[str, np.ndarray] = {}
    for name in expected_shapes():
        layer, _, kind = name.rpartition(".")
        if kind == "weight":
            folded[name], folded[f"{layer}.bias"] = _folded(found, layer)
    return folded


def _published_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in expected_shapes().items():
        layer, _, kind = name.rpartition(".")
        if kind == "weight":
            shapes[f"{layer}.conv.weight"] = shape
            norm = ("weight", "bias", "running_mean", "running_var")
            shapes |= {f"{layer}.bn.{each}": shape[:1] for each in norm}
    return shapes


def _folded(found: dict[str, np.ndarray], layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of the convolution that does what convolution and batch norm did."""
    norm = {
        kind: found[f"{layer}.bn.{kind}"].astype(np.float64)
        for kind in ("weight", "bias", "running_mean", "running_var")
    }
    scale = norm["weight"] / np.sqrt(norm["running_var"] + _EPSILON)
    kernel = found[f"{layer}.conv.weight"].astype(np.float64) * scale[:, None, None, None]
    bias = norm["bias"] - norm["running_mean"] * scale
    return kernel.astype(np.float32), bias.astype(np.float32)
