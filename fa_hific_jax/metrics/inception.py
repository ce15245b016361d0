"""The Inception v3 of FID: the network of 2015-12-05 up to its last average pooling.

The architecture is that of Szegedy et al., "Rethinking the Inception Architecture for Computer
Vision", CVPR 2016, in the version with which FID was introduced (Heusel et al., NeurIPS 2017).
Layers have torchvision's names. Apart from its weights, it differs from torchvision's network in
two ways: its average poolings do not count the padding, and its last block has a maximum pooling in
place of an average pooling.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8

from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.weight_files import mistakes, parameters, read_npz

Maps = Float[Array, "_ _ _ _"]

SIDE = 299
COMMAND = "fa-hific get-inception"


class Layer(NamedTuple):
    """A convolution with bias and ReLU; unless `valid`, padding keeps the size at stride 1."""

    outputs: int
    height: int = 1
    width: int = 1
    stride: int = 1
    valid: bool = False


AVERAGE, MAXIMUM, HALVING = "3x3 average", "3x3 maximum", "3x3 maximum at stride 2"
Step = Layer | str | tuple[Layer, Layer]
"""A layer, a pooling, or two layers whose outputs are concatenated."""
Block = dict[str, list[Step]]
"""Steps of each branch by its name. The outputs of the branches are concatenated."""

_FORK = (Layer(384, 1, 3), Layer(384, 3, 1))


def _block_a(pooled: int) -> Block:
    return {
        "branch1x1": [Layer(64)],
        "branch5x5": [Layer(48), Layer(64, 5, 5)],
        "branch3x3dbl": [Layer(64), Layer(96, 3, 3), Layer(96, 3, 3)],
        "branch_pool": [AVERAGE, Layer(pooled)],
    }


def _block_c(n: int) -> Block:
    across, down = Layer(n, 1, 7), Layer(n, 7, 1)
    return {
        "branch1x1": [Layer(192)],
        "branch7x7": [Layer(n), across, Layer(192, 7, 1)],
        "branch7x7dbl": [Layer(n), down, across, down, Layer(192, 1, 7)],
        "branch_pool": [AVERAGE, Layer(192)],
    }


def _block_e(pool: str) -> Block:
    return {
        "branch1x1": [Layer(320)],
        "branch3x3": [Layer(384), _FORK],
        "branch3x3dbl": [Layer(448), Layer(384, 3, 3), _FORK],
        "branch_pool": [pool, Layer(192)],
    }


NETWORK: dict[str, Block] = {
    "Conv2d_1a_3x3": {"": [Layer(32, 3, 3, 2, True)]},
    "Conv2d_2a_3x3": {"": [Layer(32, 3, 3, 1, True)]},
    "Conv2d_2b_3x3": {"": [Layer(64, 3, 3), HALVING]},
    "Conv2d_3b_1x1": {"": [Layer(80)]},
    "Conv2d_4a_3x3": {"": [Layer(192, 3, 3, 1, True), HALVING]},
    "Mixed_5b.": _block_a(32),
    "Mixed_5c.": _block_a(64),
    "Mixed_5d.": _block_a(64),
    "Mixed_6a.": {
        "branch3x3": [Layer(384, 3, 3, 2, True)],
        "branch3x3dbl": [Layer(64), Layer(96, 3, 3), Layer(96, 3, 3, 2, True)],
        "branch_pool": [HALVING],
    },
    "Mixed_6b.": _block_c(128),
    "Mixed_6c.": _block_c(160),
    "Mixed_6d.": _block_c(160),
    "Mixed_6e.": _block_c(192),
    "Mixed_7a.": {
        "branch3x3": [Layer(192), Layer(320, 3, 3, 2, True)],
        "branch7x7x3": [Layer(192), Layer(192, 1, 7), Layer(192, 7, 1), Layer(192, 3, 3, 2, True)],
        "branch_pool": [HALVING],
    },
    "Mixed_7b.": _block_e(AVERAGE),
    "Mixed_7c.": _block_e(MAXIMUM),
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class InceptionParams:
    """The (height, width, inputs, outputs) kernels and the biases, with batch norms folded in."""

    weights: Mapping[str, Float[Array, "..."]]


def load_inception(path: str | os.PathLike[str]) -> InceptionParams:
    """Returns the float32 parameters from an .npz of `fa-hific get-inception`, local or cloud.

    Raises:
      UserError: the file is missing, is not an .npz, or lacks arrays of the right shape.
    """
    arrays = read_npz(path, COMMAND, "docs/evaluation.md")
    if wrong := mistakes(arrays, expected_shapes()):
        raise UserError(
            f"{path}: not the weights of FID's Inception ({wrong}): make the file with `{COMMAND}`"
        )
    return InceptionParams(parameters({name: arrays[name] for name in expected_shapes()}))


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """Returns the shape of every array in an .npz by name; kernels are (outputs, inputs, h, w)."""
    shapes: dict[str, tuple[int, ...]] = {}

    def convolve(name: str, layer: Layer, inputs: int) -> int:
        shapes[f"{name}.weight"] = (layer.outputs, inputs, layer.height, layer.width)
        shapes[f"{name}.bias"] = (layer.outputs,)
        return layer.outputs

    _walk(3, convolve, lambda _, channels: channels, sum)
    return shapes


def inception(params: InceptionParams, x: UInt8[Array, "b h w 3"]) -> Float[Array, "b 2048"]:
    """Returns the 2048 float32 features of each RGB image that FID compares.

    Images are resized to 299 x 299 as in TensorFlow 1: bilinear, without antialiasing, with output
    pixel i at input position i * side / 299. Values are then scaled to (x - 128) / 128, as in the
    graph of 2015-12-05.
    """
    x = x.astype(jnp.float32)
    for axis in (1, 2):
        weights = jnp.asarray(resizing(x.shape[axis]))
        x = jnp.moveaxis(jnp.tensordot(weights, x, (1, axis), precision="highest"), 0, axis)
    return jnp.mean(last_maps(params, (x - 128.0) / 128.0), axis=(1, 2))


def last_maps(params: InceptionParams, h: Maps) -> Maps:
    """Returns the feature maps of the last block for images in [-1, 1] of at least 75 x 75."""

    def convolve(name: str, layer: Layer, h: Maps) -> Maps:
        padding = (0, 0) if layer.valid else (layer.height // 2, layer.width // 2)
        h = lax.conv_general_dilated(
            h,
            params.weights[f"{name}.weight"],
            (layer.stride, layer.stride),
            [(side, side) for side in padding],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=lax.Precision.HIGHEST,  # Accelerators would round to 8 or 11 bits.
        )
        return jax.nn.relu(h + params.weights[f"{name}.bias"][None, None, None])

    return _walk(h, convolve, _pool, functools.partial(jnp.concatenate, axis=-1))


def _walk(
    h: Any, convolve: Callable[..., Any], pool: Callable[..., Any], join: Callable[..., Any]
) -> Any:
    """Returns what the network makes of h: maps, or their number of channels.

    Its operations are `convolve(name, layer, h)`, `pool(kind, h)` and `join(outputs)`. If a branch
    has several layers, they are numbered, and the two of a fork have letters.
    """
    for block, branches in NETWORK.items():
        outputs = []
        for branch, steps in branches.items():
            out, number = h, 0
            several = sum(not isinstance(step, str) for step in steps) > 1
            for step in steps:
                if isinstance(step, str):
                    out = pool(step, out)
                    continue
                number += 1
                name = f"{block}{branch}_{number}" if several else block + branch
                alone = isinstance(step, Layer)
                layers = {name: step} if alone else {f"{name}a": step[0], f"{name}b": step[1]}
                out = join([convolve(each, layer, out) for each, layer in layers.items()])
            outputs.append(out)
        h = join(outputs)
    return h


def _pool(kind: str, h: Maps) -> Maps:
    window, each = (1, 3, 3, 1), (1, 1, 1, 1)
    if kind == HALVING:
        return lax.reduce_window(h, -jnp.inf, lax.max, window, (1, 2, 2, 1), "VALID")
    if kind == MAXIMUM:
        return lax.reduce_window(h, -jnp.inf, lax.max, window, each, "SAME")
    ones = jnp.ones((1, *h.shape[1:3], 1))
    total, count = (lax.reduce_window(m, 0.0, lax.add, window, each, "SAME") for m in (h, ones))
    return total / count


def resizing(side: int) -> Float[np.ndarray, "299 {side}"]:
    """Returns the matrix that resizes one axis from `side` to 299."""
    position = np.arange(SIDE, dtype=np.float32) * np.float32(side / SIDE)
    low = position.astype(np.int64)
    share = position - low
    rows = np.arange(SIDE)
    matrix = np.zeros((SIDE, side), np.float32)
    np.add.at(matrix, (rows, low), 1 - share)
    np.add.at(matrix, (rows, np.minimum(low + 1, side - 1)), share)
    return matrix
