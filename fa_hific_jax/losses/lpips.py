"""LPIPS v0.1 on AlexNet: a perceptual distance in the features of a frozen network."""

import io
import os
import zipfile
import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import lax
from jaxtyping import Array, Float

from fa_hific_jax.errors import UserError
from fa_hific_jax.ops import Image

Features = Float[Array, "_ _ _ _"]

# Of the ImageNet standardisation, applied to images in [-1, 1].
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


class Convolution(NamedTuple):
    """A convolution of AlexNet: its name in torchvision, geometry, and a pooling before it."""

    name: str
    kernel: int
    inputs: int
    outputs: int
    stride: int
    padding: int
    pool_before: bool


ALEXNET = (
    Convolution("features.0", 11, 3, 64, stride=4, padding=2, pool_before=False),
    Convolution("features.3", 5, 64, 192, stride=1, padding=2, pool_before=True),
    Convolution("features.6", 3, 192, 384, stride=1, padding=1, pool_before=True),
    Convolution("features.8", 3, 384, 256, stride=1, padding=1, pool_before=False),
    Convolution("features.10", 3, 256, 256, stride=1, padding=1, pool_before=False),
)
# One pixel less, and the second pooling has no window left.
SMALLEST_SIDE = 31


class LpipsParams(NamedTuple):
    """Five convolutions (kernels HWIO) and, per tap, a weight for each channel; float32."""

    kernels: tuple[Float[Array, "_ _ _ _"], ...]
    biases: tuple[Float[Array, " _"], ...]
    linear: tuple[Float[Array, " _"], ...]


def load_lpips(path: str | os.PathLike[str]) -> LpipsParams:
    """The parameters from an .npz that docs/lpips.md describes; local or cloud path.

    Raises:
      UserError: the file is missing, is no .npz, or lacks arrays of the right shape.
    """
    found = epath.Path(path)
    if not found.is_file():
        raise UserError(
            f'{path}: no such file; make it with the snippet under "LPIPS weights" in docs/lpips.md'
        )
    arrays = _read_npz(path, found.read_bytes())
    shapes = _expected_shapes()
    wrong = [
        name
        for name, shape in shapes.items()
        if name not in arrays or arrays[name].shape != shape or arrays[name].dtype.kind != "f"
    ]
    if wrong:
        raise UserError(
            f"{path}: not the LPIPS weights of AlexNet, arrays missing or of a wrong shape: "
            f"{', '.join(wrong)}; docs/lpips.md shows how to make the file"
        )
    arrays = {name: jnp.asarray(arrays[name], jnp.float32) for name in shapes}
    return LpipsParams(
        kernels=tuple(arrays[f"{c.name}.weight"].transpose(2, 3, 1, 0) for c in ALEXNET),
        biases=tuple(arrays[f"{c.name}.bias"] for c in ALEXNET),
        linear=tuple(arrays[f"lin{i}.weight"].reshape(-1) for i in range(len(ALEXNET))),
    )


def lpips(params: LpipsParams, x: Image, x_hat: Image) -> Float[Array, " b"]:
    """LPIPS distance of each pair of RGB images in [0, 1], float32; 0 for equal ones.

    Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR
    2018, version 0.1 with AlexNet. Between equal images the gradient is 0 too (both up to rounding
    where a compiler rounds the two sides differently).

    Raises:
      UserError: a side is shorter than 31 pixels.
    """
    _, height, width, _ = x.shape
    if min(height, width) < SMALLEST_SIDE:
        raise UserError(
            f"LPIPS needs images of at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, "
            f"not {height} x {width}: use larger images or crops"
        )
    # Not as one batch: to join two batches that lie across devices would send images between them.
    taps, taps_hat = _features(params, x), _features(params, x_hat)
    distance = jnp.zeros(x.shape[0], jnp.float32)
    for a, b, linear in zip(taps, taps_hat, params.linear, strict=True):
        difference = jnp.square(_unit(a) - _unit(b)) * linear[None, None, None]
        distance += jnp.mean(jnp.sum(difference, axis=-1), axis=(1, 2))
    return distance


def _features(params: LpipsParams, x: Image) -> list[Features]:
    """The outputs of the five convolutions, after ReLU."""
    shift, scale = jnp.asarray(SHIFT, jnp.float32), jnp.asarray(SCALE, jnp.float32)
    h = (2.0 * x.astype(jnp.float32) - 1.0 - shift[None, None, None]) / scale[None, None, None]
    taps = []
    for layer, kernel, bias in zip(ALEXNET, params.kernels, params.biases, strict=True):
        if layer.pool_before:
            h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
        h = lax.conv_general_dilated(
            h,
            kernel,
            (layer.stride,) * 2,
            [(layer.padding, layer.padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=lax.Precision.HIGHEST,  # accelerators would else round to 8 or 11 bits
        )
        h = jax.nn.relu(h + bias[None, None, None])
        taps.append(h)
    return taps


def _unit(features: Features) -> Features:
    """Features divided by (their L2 norm over channels + 1e-10)."""
    squares = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
    # The root has no derivative where ReLU left only zeros, which the outer `where` alone would
    # not keep from turning into NaN.
    positive = squares > 0
    norm = jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)
    return features / (norm + 1e-10)


def _expected_shapes() -> dict[str, tuple[int, ...]]:
    shapes = {}
    for i, layer in enumerate(ALEXNET):
        shapes[f"{layer.name}.weight"] = (layer.outputs, layer.inputs, layer.kernel, layer.kernel)
        shapes[f"{layer.name}.bias"] = (layer.outputs,)
        shapes[f"lin{i}.weight"] = (1, layer.outputs, 1, 1)
    return shapes


def _read_npz(path: str | os.PathLike[str], content: bytes) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in arrays.files}
    # A TypeError where the file is an .npy: np.load gives an array, which `with` does not take.
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path}: not a readable .npz file; make it anew as docs/lpips.md shows"
        ) from error
