"""Converts the published weights of FID's Inception to one .npz file."""

from pathlib import Path

import numpy as np

from fa_hific_jax.convert.published import PublishedFile, Recipe, get_weights
from fa_hific_jax.convert.torch_file import read_torch_file
from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.weight_files import mistakes
from fa_hific_jax.metrics.inception import COMMAND, expected_shapes

# TensorFlow's inception-2015-12-05.tgz as converted by pytorch-fid; torch-fidelity offers the same
# file. Many projects record this hash. They agree with each other and with the eight digits in the
# name, which are all that pytorch-fid itself could check.
SOURCE = PublishedFile(
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)

_EPSILON = 1e-3  # added to the variance by the batch norms
_NORM = ("weight", "bias", "running_mean", "running_var")  # arrays of a batch norm


def get_inception(output: Path | None = None, folder: Path | None = None) -> Path:
    """Returns the path of an .npz of weights for `load_inception`; see `get_weights`."""
    shapes = expected_shapes()
    recipe = Recipe("inception.npz", (SOURCE,), convert_inception, shapes, COMMAND)
    return get_weights(recipe, output, folder)


def convert_inception(file: Path) -> dict[str, np.ndarray]:
    """Returns the float32 arrays of the .npz: (out, in, height, width) kernels and biases by layer.

    Each batch norm is folded into the convolution before it, computed in float64.

    Args:
      file: pytorch-fid's state dict, a file of `torch.save`.

    Raises:
      UserError: the file was not written by `torch.save`, or it lacks arrays of the right shape.
    """
    found, kernels = read_torch_file(file), {}
    for name, shape in expected_shapes().items():
        if name.endswith(".weight"):
            kernels[name.removesuffix(".weight")] = shape
    shapes = {f"{layer}.conv.weight": shape for layer, shape in kernels.items()}
    shapes |= {f"{layer}.bn.{each}": kernels[layer][:1] for layer in kernels for each in _NORM}
    if wrong := mistakes(found, shapes):
        raise UserError(f"{file}: not the weights of FID's Inception ({wrong}): download it again")
    folded: dict[str, np.ndarray] = {}
    for layer in kernels:
        folded[f"{layer}.weight"], folded[f"{layer}.bias"] = _folded(found, layer)
    return folded


def _folded(found: dict[str, np.ndarray], layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel and bias of one convolution that equals convolution and batch norm."""
    weight, bias, mean, variance = (found[f"{layer}.bn.{k}"].astype(np.float64) for k in _NORM)
    scale = weight / np.sqrt(variance + _EPSILON)
    kernel = found[f"{layer}.conv.weight"].astype(np.float64) * scale[:, None, None, None]
    bias = bias - mean * scale
    return kernel.astype(np.float32), bias.astype(np.float32)
