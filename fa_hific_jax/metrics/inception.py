"""The Inception v3 of FID: the network of 2015-12-05 up to its last average pooling.

The architecture is that of Szegedy et al., "Rethinking the Inception Architecture for Computer
Vision", CVPR 2016, in the version with which FID was introduced (Heusel et al., NeurIPS 2017).
Layers have torchvision's names. Apart from its weights, it differs from torchvision's network in
two ways: its average poolings do not count the padding, and its last block has a maximum pooling in
place of an average pooling.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8

from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.weight_files import mistakes, parameters, read_npz

Maps = Float[Array, "_ _ _ _"]
_joined = partial(jnp.concatenate, axis=-1)

SIDE = 299
COMMAND = "fa-hific get-inception"


class Layer(NamedTuple):
    """A convolution with bias and ReLU; unless `valid`, padding keeps the size at stride 1."""

    outputs: int
    height: int = 1
    width: int = 1
    stride: int = 1
    valid: bool = False


Convolve = Callable[[str, Maps, Layer], Maps]
"""Applies the layer of a name."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class InceptionParams:
    """The (height, width, inputs, outputs) kernels and the biases, with batch norms folded in."""

    weights: Mapping[str, Float[Array, "..."]]


def load_inception(path: str | os.PathLike[str]) -> InceptionParams:
    """Returns the float32 parameters from an .npz of `fa-hific get-inception`, local or cloud.

    Raises a UserError if the file is missing or lacks arrays of the right shape.
    """
    arrays, shapes = read_npz(path, COMMAND, "docs/evaluation.md"), expected_shapes()
    if wrong := mistakes(arrays, shapes):
        raise UserError(
            f"{path}: not the weights of FID's Inception ({wrong}): make the file with `{COMMAND}`"
        )
    return InceptionParams(parameters({name: arrays[name] for name in shapes}))


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """Returns the shape of every array in an .npz by name; kernels are (outputs, inputs, h, w)."""
    shapes: dict[str, tuple[int, ...]] = {}

    def convolve(name: str, h: Maps, layer: Layer) -> Maps:
        kernel = (layer.height, layer.width, h.shape[3], layer.outputs)
        shapes[f"{name}.weight"] = (layer.outputs, h.shape[3], layer.height, layer.width)
        shapes[f"{name}.bias"] = (layer.outputs,)
        return _convolved(h, layer, jnp.zeros(kernel), jnp.zeros(layer.outputs))

    jax.eval_shape(partial(_network, convolve), jnp.zeros((1, SIDE, SIDE, 3)))
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

    def convolve(name: str, h: Maps, layer: Layer) -> Maps:
        return _convolved(h, layer, *(params.weights[f"{name}.{of}"] for of in ("weight", "bias")))

    return _network(convolve, h)


def _network(convolve: Convolve, h: Maps) -> Maps:
    h = convolve("Conv2d_1a_3x3", h, Layer(32, 3, 3, 2, True))
    h = convolve("Conv2d_2a_3x3", h, Layer(32, 3, 3, 1, True))
    h = _halved(convolve("Conv2d_2b_3x3", h, Layer(64, 3, 3)))
    h = convolve("Conv2d_3b_1x1", h, Layer(80))
    h = _halved(convolve("Conv2d_4a_3x3", h, Layer(192, 3, 3, 1, True)))
    names = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
    blocks = [partial(_branch, convolve, f"Mixed_{name}.branch") for name in names]
    for branch, pooled in zip(blocks[:3], (32, 64, 64), strict=True):
        h = _joined(_block_a(branch, h, pooled))
    branch = blocks[3]
    square = branch("3x3", h, Layer(384, 3, 3, 2, True))
    double = branch("3x3dbl", h, Layer(64), Layer(96, 3, 3), Layer(96, 3, 3, 2, True))
    h = _joined([square, double, _halved(h)])
    for branch, inner in zip(blocks[4:8], (128, 160, 160, 192), strict=True):
        h = _joined(_block_c(branch, h, inner))
    branch = blocks[8]
    crossed = (Layer(192), Layer(192, 1, 7), Layer(192, 7, 1), Layer(192, 3, 3, 2, True))
    square = branch("3x3", h, Layer(192), Layer(320, 3, 3, 2, True))
    h = _joined([square, branch("7x7x3", h, *crossed), _halved(h)])
    h = _joined(_block_e(blocks[9], h, _average(h)))
    return _joined(_block_e(blocks[10], h, _pooled(h, lax.max, -jnp.inf)))


def _branch(convolve: Convolve, block: str, name: str, h: Maps, *layers: Layer) -> Maps:
    """Applies layers one after the other, which are numbered if there are several."""
    for number, layer in enumerate(layers, 1):
        h = convolve(f"{block}{name}_{number}" if len(layers) > 1 else block + name, h, layer)
    return h


def _block_a(branch: Callable[..., Maps], h: Maps, pooled: int) -> list[Maps]:
    return [
        branch("1x1", h, Layer(64)),
        branch("5x5", h, Layer(48), Layer(64, 5, 5)),
        branch("3x3dbl", h, Layer(64), Layer(96, 3, 3), Layer(96, 3, 3)),
        branch("_pool", _average(h), Layer(pooled)),
    ]


def _block_c(branch: Callable[..., Maps], h: Maps, n: int) -> list[Maps]:
    across, down = Layer(n, 1, 7), Layer(n, 7, 1)
    return [
        branch("1x1", h, Layer(192)),
        branch("7x7", h, Layer(n), across, Layer(192, 7, 1)),
        branch("7x7dbl", h, Layer(n), down, across, down, Layer(192, 1, 7)),
        branch("_pool", _average(h), Layer(192)),
    ]


def _block_e(branch: Callable[..., Maps], h: Maps, pooled: Maps) -> list[Maps]:
    across, down = Layer(384, 1, 3), Layer(384, 3, 1)
    alone = branch("1x1", h, Layer(320))
    single = branch("3x3_1", h, Layer(384))
    forks = [branch("3x3_2a", single, across), branch("3x3_2b", single, down)]
    double = branch("3x3dbl_2", branch("3x3dbl_1", h, Layer(448)), Layer(384, 3, 3))
    forks += [branch("3x3dbl_3a", double, across), branch("3x3dbl_3b", double, down)]
    return [alone, *forks, branch("_pool", pooled, Layer(192))]


def _convolved(h: Maps, layer: Layer, kernel: Maps, bias: Float[Array, " c"]) -> Maps:
    padding = (0, 0) if layer.valid else (layer.height // 2, layer.width // 2)
    h = lax.conv_general_dilated(
        h,
        kernel,
        (layer.stride, layer.stride),
        [(side, side) for side in padding],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,  # Accelerators would round to 8 or 11 bits.
    )
    return jax.nn.relu(h + bias[None, None, None])


def _pooled(h: Maps, reduce: Callable[..., Array], start: float) -> Maps:
    return lax.reduce_window(h, start, reduce, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")


def _average(h: Maps) -> Maps:
    return _pooled(h, lax.add, 0.0) / _pooled(jnp.ones((1, *h.shape[1:3], 1)), lax.add, 0.0)


def _halved(h: Maps) -> Maps:
    return lax.reduce_window(h, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")


def resizing(side: int) -> Float[np.ndarray, "299 {side}"]:
    """Returns the matrix that resizes one axis from `side` to 299."""
    position = np.arange(SIDE, dtype=np.float32) * np.float32(side / SIDE)
    low = position.astype(np.int64)
    rows, share = np.arange(SIDE), position - low
    matrix = np.zeros((SIDE, side), np.float32)
    np.add.at(matrix, (rows, low), 1 - share)
    np.add.at(matrix, (rows, np.minimum(low + 1, side - 1)), share)
    return matrix
