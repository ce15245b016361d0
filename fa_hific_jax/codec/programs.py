"""Compiled programs of the networks, each for one shape, and the images that share them.

An image that is padded to multiples of STRIDE can have a program of its own shape. On a canvas it
lies at the top left of a larger array and the network is told its true size: one program for many
sizes, with the same results.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32

try:
    from jax import enable_x64
except ImportError:  # before jax 0.8
    from jax.experimental import enable_x64  # pyright: ignore[reportAttributeAccessIssue]

from fa_hific_jax import ops
from fa_hific_jax.models.autoencoder import (
    STRIDE,
    Autoencoder,
    DecoderState,
    ModelConfig,
    bind,
)

LATENT = 16
"""Pixels to one latent."""

WHOLE_PIXELS = 2**21
"""Up to so many pixels (padded) images are taken whole unless asked otherwise."""

_BATCH = 16  # images at once, where they are so small
_CANVASES = 2
_CANDIDATES = 24  # heights, and widths, that a smaller canvas may have

Shape = tuple[int, int]
Function = Callable[[Autoencoder, Any, Any], Any]
"""One of the functions at the end of this file, of (network, batch, true size)."""


class Network(NamedTuple):
    """An autoencoder with its parameters, and the dtype to compute in, None for the config's."""

    config: ModelConfig
    params: Any
    dtype: str | None = None


def padded_shape(height: int, width: int) -> Shape:
    """The size as the network sees it: the next multiples of STRIDE."""
    return -(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE


def plan(sizes: Sequence[Shape]) -> tuple[Shape, ...]:
    """At most two canvases, in pixels, for images of these (height, width), so that each program
    compiles at most twice.

    They are chosen to hold the images that are taken whole with the least area in sum. Empty where
    these have no more than two padded shapes, which then serve themselves. A canvas that would be
    too large to be taken whole itself is left out: wide images beside high ones keep their own
    programs.
    """
    shapes = [padded_shape(*size) for size in sizes]
    shapes = np.array([s for s in shapes if s[0] * s[1] <= WHOLE_PIXELS]).reshape(-1, 2)
    distinct, counts = np.unique(shapes, axis=0, return_counts=True)
    if len(distinct) <= _CANVASES:
        return ()
    pairs = []
    for first in itertools.product(_candidates(distinct[:, 0]), _candidates(distinct[:, 1])):
        fits = np.all(distinct <= first, axis=1)
        second = first if fits.all() else tuple(np.max(distinct[~fits], axis=0).tolist())
        area = np.sum(counts * np.where(fits, math.prod(first), math.prod(second)))
        pairs.append((area, sorted({first, second})))
    return tuple(canvas for canvas in min(pairs)[1] if math.prod(canvas) <= 2 * WHOLE_PIXELS)


def run_whole(
    network: Network,
    function: Function,
    arrays: Sequence[np.ndarray | None],
    canvases: Sequence[Shape],
) -> list[Any]:
    """Returns what the function makes of each array that is there, on its canvas, uncropped."""
    unit = LATENT if function is generate else 1
    present = {i: array for i, array in enumerate(arrays) if array is not None}
    groups: dict[tuple[Shape, bool], list[int]] = {}
    for i, array in present.items():
        groups.setdefault(_choose(array.shape[:2], unit, canvases), []).append(i)
    results: list[Any] = [None] * len(arrays)
    for (canvas, shared), group in groups.items():
        most = min(_BATCH, max(1, WHOLE_PIXELS // (canvas[0] * canvas[1] * unit**2)))
        count = min(most, len(group))
        for start in range(0, len(group), count):
            chunk = group[start : start + count]
            members = [present[i] for i in chunk]
            # The last chunk is filled up: another number of images would be another program.
            members += [members[0]] * (count - len(members))
            sizes = sizes_of(members) if shared else None
            made = run(network, function, canvas_of(members, canvas), sizes)
            for position, i in enumerate(chunk):
                results[i] = jax.tree.map(lambda leaf, position=position: leaf[position], made)
    return results


def canvas_of(arrays: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
    """The arrays (height, width, channels) at the top left of zeros of that height and width."""
    canvas = np.zeros((len(arrays), *shape, arrays[0].shape[2]), arrays[0].dtype)
    for place, array in zip(canvas, arrays, strict=True):
        place[: array.shape[0], : array.shape[1]] = array
    return canvas


def sizes_of(arrays: Sequence[np.ndarray]) -> Int32[np.ndarray, "b 2"]:
    """Height and width of each array."""
    return np.array([array.shape[:2] for array in arrays], np.int32)


def run(
    network: Network, function: Function, x: Any, sizes: Int32[np.ndarray, "b 2"] | None
) -> Any:
    """Returns what a function below makes of a batch, on the host; of its true `sizes` if given."""
    config, params, dtype = network
    # Explicitly either way, so that the caller's own setting changes nothing.
    with enable_x64(dtype == "float64"):
        return jax.device_get(_program(config, params, x, sizes, function=function, dtype=dtype))


def _candidates(extents: np.ndarray) -> list[int]:
    """At most _CANDIDATES of the extents, evenly among them, the largest included."""
    distinct = np.unique(extents)
    return distinct[:: -max(1, len(distinct) // _CANDIDATES)].tolist()


def _choose(shape: Shape, unit: int, canvases: Sequence[Shape]) -> tuple[Shape, bool]:
    """The canvas for an array of this shape in its own units, and whether others share it."""
    scaled = [(height // unit, width // unit) for height, width in canvases]
    fitting = [c for c in scaled if shape[0] <= c[0] and shape[1] <= c[1]]
    return (min(fitting, key=math.prod), True) if fitting else (shape, False)


def analyze(net: Autoencoder, x, size):
    """Returns y and z, before rounding, of 8-bit images."""
    y, z, _ = net.analyze(_unit_range(net, x), size)
    return y, z


def encode(net: Autoencoder, x, size):
    """Returns y of 8-bit images."""
    return net.encode(_unit_range(net, x), size)[0]


def hyper_analyze(net: Autoencoder, y, size):
    """Returns z, before rounding, of y."""
    return net.hyperprior.analysis(y, size)


def generate(net: Autoencoder, y_hat, size):
    """Returns 8-bit images of y_hat."""
    return _to_8_bits(net.generate(y_hat, size))


def latent_stage(net: Autoencoder, y_hat, size):
    """Returns the first half of `generate`, for `pixel_stage`."""
    return net.latent_stage(y_hat, size)


def pixel_stage(net: Autoencoder, state: DecoderState, size):
    """Returns the second half of `generate`."""
    return _to_8_bits(net.pixel_stage(state, size)[0])


def _to_8_bits(image):
    return ops.round_half_up(jnp.clip(image, 0.0, 1.0) * 255.0).astype(jnp.uint8)


def _unit_range(net: Autoencoder, x):
    return x.astype(net.dtype or "float32") / 255.0


@functools.partial(jax.jit, static_argnums=0, static_argnames=("function", "dtype"))
def _program(config, params, x, sizes, *, function, dtype):
    """The function for each element of a batch, with sizes or all of the array's."""
    if dtype == "float64":
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    net = bind(config, params, dtype)

    def one(x, size):
        size = None if size is None else (size[0], size[1])
        out = function(net, jax.tree.map(lambda leaf: leaf[None], x), size)
        return jax.tree.map(lambda leaf: leaf[0], out)

    return jax.vmap(one, in_axes=(0, None if sizes is None else 0))(x, sizes)
