"""Runs the networks as compiled programs, and lets images of different sizes share them.

A compiled program handles one shape. An image, padded to multiples of STRIDE, has a program of its
own shape, or is put at the top left of a larger array, a canvas, and the network gets its true
size. One program then serves many sizes, with the same results.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fa_hific_jax import ops
from fa_hific_jax.models import padded_shape
from fa_hific_jax.models.autoencoder import Autoencoder, DecoderState, ModelConfig, bind

LATENT = 16  # pixels per latent, in each direction
WHOLE_PIXELS = 2**21  # padded pixels up to which the mode "auto" processes an image whole
_BATCH = 16  # largest number of images processed at once, if they are small
_CANVASES = 2  # largest number of canvases in a plan
_CANDIDATES = 24  # heights, and widths, that are tried for the smaller canvas

Shape = tuple[int, int]
Function = Callable[[Autoencoder, Any, Any], Any]  # one below: of network, batch and true size


class Network(NamedTuple):
    """An autoencoder with its parameters and the dtype of computation, None for the config's."""

    config: ModelConfig
    params: Any
    dtype: str | None = None


def plan(sizes: Sequence[Shape]) -> tuple[Shape, ...]:
    """Returns at most two canvases, in pixels, for images of these (height, width).

    With them, each program is compiled at most twice. The canvases have the smallest total area
    that holds all images of at most WHOLE_PIXELS. Images have programs of their own shapes if there
    are at most two, or if their canvas would be too large to be processed whole.
    """
    shapes = [padded_shape(*size) for size in sizes]
    shapes = np.array([s for s in shapes if s[0] * s[1] <= WHOLE_PIXELS]).reshape(-1, 2)
    distinct, counts = np.unique(shapes, axis=0, return_counts=True)
    if len(distinct) <= _CANVASES:
        return ()
    # About _CANDIDATES heights and widths are tried, evenly spread and with the largest ones.
    tried = (np.unique(sides) for sides in distinct.T)
    tried = (sides[:: -max(1, len(sides) // _CANDIDATES)].tolist() for sides in tried)
    pairs = []
    for first in itertools.product(*tried):
        fits = np.all(distinct <= first, axis=1)
        second = first if fits.all() else tuple(np.max(distinct[~fits], axis=0).tolist())
        area = np.sum(counts * np.where(fits, math.prod(first), math.prod(second)))
        pairs.append((area, sorted({first, second})))
    return tuple(canvas for canvas in min(pairs)[1] if math.prod(canvas) <= 2 * WHOLE_PIXELS)


def run_whole(
    network: Network, function: Function, arrays: Sequence[Any], canvases: Sequence[Shape] = ()
) -> list[Any]:
    """Returns the result of the function for each array, on the smallest canvas that holds it."""
    unit = LATENT if function is generate else 1  # pixels per side of an element
    scaled = sorted(((height // unit, width // unit) for height, width in canvases), key=math.prod)
    groups: dict[tuple[Shape, bool], list[int]] = {}  # canvas, and True if many sizes share it
    for i, array in enumerate(arrays):
        height, width = array.shape[:2]
        canvas = next((c for c in scaled if height <= c[0] and width <= c[1]), None)
        groups.setdefault((canvas or (height, width), canvas is not None), []).append(i)
    results = {}
    for (canvas, shared), group in groups.items():
        count = max(1, WHOLE_PIXELS // (math.prod(canvas) * unit**2))
        count = min(count, _BATCH, len(group))
        for start in range(0, len(group), count):
            chunk = group[start : start + count]
            # The last chunk is filled up, because another batch size would need another program.
            members = [arrays[i] for i in chunk + chunk[:1] * (count - len(chunk))]
            made = run(network, function, members, canvas, shared)
            results |= zip(chunk, made, strict=False)
    return [results[i] for i in range(len(arrays))]


def run(
    network: Network, function: Function, members: Sequence[Any], canvas: Shape, shared: bool
) -> list[Any]:
    """Returns the result of a function below for each member of a batch, on the host.

    Members are arrays (height, width, channels), or trees of arrays with the same height and width.
    They are zero-padded to the size of the canvas, and the results are cropped by as much. With
    `shared`, the network gets the true sizes.
    """
    config, params, dtype = network
    sizes = np.array([jax.tree.leaves(each)[0].shape[:2] for each in members], np.int32)

    def padded(*leaves: np.ndarray) -> np.ndarray:
        batch = np.zeros((len(leaves), *canvas, leaves[0].shape[2]), leaves[0].dtype)
        for place, leaf in zip(batch, leaves, strict=True):
            place[: leaf.shape[0], : leaf.shape[1]] = leaf
        return batch

    x = jax.tree.map(padded, *members)
    # Set in both cases, so that the caller's own setting has no effect.
    with ops.enable_x64(dtype == "float64"):
        given = sizes if shared else None
        made = jax.device_get(_program(config, params, x, given, function=function, dtype=dtype))

    def cropped(i: int, leaf: np.ndarray) -> np.ndarray:
        height, width = sizes[i] * leaf.shape[1:3] // canvas
        return leaf[i, :height, :width]

    return [jax.tree.map(functools.partial(cropped, i), made) for i in range(len(members))]


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
    return ops.to_8_bits(net.generate(y_hat, size))


def latent_stage(net: Autoencoder, y_hat, size):
    """Returns the first half of `generate`, for `pixel_stage`."""
    return net.latent_stage(y_hat, size)


def pixel_stage(net: Autoencoder, state: DecoderState, size):
    """Returns the second half of `generate`."""
    return ops.to_8_bits(net.pixel_stage(state, size)[0])


def _unit_range(net: Autoencoder, x):
    return x.astype(net.dtype or "float32") / 255.0


@functools.partial(jax.jit, static_argnums=0, static_argnames=("function", "dtype"))
def _program(config, params, x, sizes, *, function, dtype):
    """Applies the function to each element of a batch: the compiled part of `run`."""
    if dtype == "float64":
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    net = bind(config, params, dtype)

    def one(x, size):
        size = None if size is None else (size[0], size[1])
        out = function(net, jax.tree.map(lambda leaf: leaf[None], x), size)
        return jax.tree.map(lambda leaf: leaf[0], out)

    return jax.vmap(one, in_axes=(0, None if sizes is None else 0))(x, sizes)
