"""Computes mean and table row of every latent from z in integers, with the same bits everywhere.

The range decoder must use the encoder's table for every symbol, but a float network may round
differently on another device, with other threads or in other tiles. Hence `codec/float_model.py`
quantizes both hyper-synthesis networks once, at export (Balle et al. 2019, "Integer networks for
data compression with latent-variable models").

The integers are stored as float64, because BLAS multiplies float64 matrices but not integers. Every
sum stays below 2**53 in magnitude, however its terms are grouped (`check_sums`). So no operation
rounds, and order of summation, threads, tiles and fused multiply-adds have no effect. A value v is
stored as the integer v * 2**exponent. Weights have one exponent per output channel, activations one
per layer, so that rescaling is a shift.

A model may round z around medians: its symbols are integers s with z = s + median. The medians add
to the first layer's sums what an input channel would that is 1 inside the picture and 0 beyond its
edges. `MEDIAN_CHANNELS` are two such channels, so that 16-bit weights are fine enough.
"""

import contextlib
import functools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int16, Int32, Int64, UInt8
from threadpoolctl import ThreadpoolController

from fa_hific_jax.errors import UserError

HyperLatents = Int32[np.ndarray, "hz wz cz"]
Values = Float64[np.ndarray, "_ _ _"]

STRIDE = 4  # latents per hyper-latent, in each direction
ACTIVATION_MAX = 2**22  # saturation of activations: 64 times the largest in the calibration
LATENT_MAX = 2**15 - 1  # saturation of |z|
MAX_SHIFT = 64  # A mean with a larger shift might not be a finite float32.
STRIP = 2**22  # activations of one layer in memory at a time, in each thread: 32 MiB
_THREADS = 4  # which bounds the memory too
_blas = functools.cache(ThreadpoolController)
_blas_lock = threading.Lock()

MEDIAN_CHANNELS = (2**14, 1)  # constants: the inputs that stand for medians, coarse and fine
KERNELS = {"up0": 5, "up1": 5, "conv2": 3}  # side of the kernel of each layer, in their order


class Layer(NamedTuple):
    """One quantized layer: its sums are kernel * x + bias, its outputs the sums / 2**shift."""

    kernel: Int16[np.ndarray, "k k i o"]
    bias: Int64[np.ndarray, " o"]
    shift: Int32[np.ndarray, " o"]


class Network(NamedTuple):
    """A quantized `HyperSynthesis`, whose layers have kernels of the sides KERNELS."""

    up0: Layer
    up1: Layer
    conv2: Layer


class IntegerSynthesis(NamedTuple):
    """Both networks, and the thresholds that turn sums of `scale` into table rows.

    A sum above thresholds[channel, row] belongs to a row after `row`. `constants` are the values of
    the input channels that follow those of z: MEDIAN_CHANNELS, or none.
    """

    mean: Network
    scale: Network
    thresholds: Int64[np.ndarray, "cy rows"]
    constants: tuple[int, ...] = ()


def parameters(
    synthesis: IntegerSynthesis, z: HyperLatents, strip: int | None = None
) -> tuple[Float32[np.ndarray, "hy wy cy"], UInt8[np.ndarray, "hy wy cy"]]:
    """Returns the mean and the table row of each latent, where hy = 4 hz and wy = 4 wz.

    The row is that of `tables.scale_indexes`, here by comparing integers. The mean is an integer
    over a power of two, rounded to float32 once. |z| saturates at LATENT_MAX. `strip`, the number
    of rows computed at a time, only affects memory.
    """
    z = with_constants(z, synthesis.constants)
    height, width, channels = z.shape
    strip = strip or max(STRIDE, STRIP // (STRIDE * width * channels))
    shape = (STRIDE * height, STRIDE * width, len(synthesis.thresholds))
    mean, indexes = np.empty(shape, np.float32), np.empty(shape, np.uint8)

    def fill_mean(rows: slice) -> None:
        mean[rows] = _sums(synthesis.mean, z, rows) * np.ldexp(1.0, -synthesis.mean.conv2.shift)

    def fill_indexes(rows: slice) -> None:
        sums = _sums(synthesis.scale, z, rows).astype(np.int64)
        for channel, edges in enumerate(synthesis.thresholds):
            indexes[rows, :, channel] = np.searchsorted(edges, sums[..., channel])

    strips = [slice(i, min(i + strip, shape[0])) for i in range(0, shape[0], strip)]
    with one_blas_thread(), ThreadPoolExecutor(_THREADS) as pool:
        done = [pool.submit(fill, rows) for rows in strips for fill in (fill_mean, fill_indexes)]
    for future in done:
        future.result()
    return mean, indexes


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keeps matrix products within the thread that asks for them, in one block at a time.

    OpenBLAS threads wait for each other in busy loops, which takes several times as long as one
    thread while other programs use the cores.
    """
    with _blas_lock, _blas().limit(limits=1, user_api="blas"):
        yield


def _sums(network: Network, z: HyperLatents, rows: slice) -> Values:
    """Returns these rows of the last layer's sums, computed from those in the receptive field."""
    start, stop, height = rows.start, rows.stop, z.shape[0]
    # Upsampling computes rows in pairs: pair i depends on rows i - 1 to i + 1 of its input.
    first1, last1 = max(start - 1, 0) // 2, min((stop + 2) // 2, 2 * height)
    first0, last0 = max(first1 - 1, 0) // 2, min((last1 + 2) // 2, height)
    x = _window(z, 0, first0 - 1, last0 + 1, height)
    x = np.clip(x, -LATENT_MAX, LATENT_MAX).astype(np.float64)
    x = activations(upsample(network.up0, x), network.up0.shift)
    x = _window(x, 2 * first0, first1 - 1, last1 + 1, 2 * height)
    x = activations(upsample(network.up1, x), network.up1.shift)
    x = _window(x, 2 * first1, start - 1, stop + 1, 4 * height)
    return _correlate(x, network.conv2.kernel) + network.conv2.bias


def _window(x: np.ndarray, first: int, start: int, stop: int, height: int) -> np.ndarray:
    """Returns rows start to stop of a zero-padded image, with a border of one column.

    The image has `height` rows, and x is its part that begins at row `first`.
    """
    inside = x[max(start, 0) - first : min(stop, height) - first]
    return np.pad(inside, ((max(-start, 0), max(stop - height, 0)), (1, 1), (0, 0)))


def upsample(layer: Layer, x: Values) -> Values:
    """Returns the sums of `models.layers.Upsample`, for x with a border of one pixel.

    Output 2 i sees inputs i - 1, i, i + 1 through taps 0, 2, 4, and output 2 i + 1 inputs i, i + 1
    through taps 1, 3.
    """
    height, width, channels = x.shape[0] - 2, x.shape[1] - 2, layer.bias.size
    sums = np.empty((height, 2, width, 2, channels))
    for row, column in np.ndindex(2, 2):
        taps = layer.kernel[row::2, column::2]
        sums[:, row, :, column] = _correlate(x[row:, column:], taps)
    sums += layer.bias
    return sums.reshape(2 * height, 2 * width, channels)


def _correlate(x: Values, kernel: Int16[np.ndarray, "kh kw i o"]) -> Values:
    """Correlates x with the kernel, without padding: one matrix product for each tap."""
    rows, columns, _, outputs = kernel.shape
    height, width, channels = x.shape[0] - rows + 1, x.shape[1] - columns + 1, x.shape[2]
    sums = np.zeros((height * width, outputs))
    for row, column in np.ndindex(rows, columns):
        shifted = x[row : row + height, column : column + width].reshape(-1, channels)
        sums += shifted @ kernel[row, column].astype(np.float64)
    return sums.reshape(height, width, outputs)


def activations(sums: Values, shift: Int32[np.ndarray, " o"]) -> Values:
    """Returns the ReLU of the sums / 2**shift, rounded down and saturated.

    Hidden layers have one half added to their bias, which makes the rounding half up.
    """
    return np.clip(np.floor(sums * np.ldexp(1.0, -shift)), 0, ACTIVATION_MAX)


def with_constants(z: HyperLatents, constants: tuple[int, ...]) -> Int32[np.ndarray, "_ _ _"]:
    """Returns z with a channel of each constant value behind its own."""
    shape = (*z.shape[:-1], len(constants))
    return np.concatenate([z, np.broadcast_to(np.array(constants, z.dtype), shape)], axis=-1)


def check_sums(synthesis: IntegerSynthesis) -> None:
    """Raises a UserError unless every sum, and every partial sum, is below 2**53 in magnitude."""
    for network in (synthesis.mean, synthesis.scale):
        inputs = (LATENT_MAX, ACTIVATION_MAX, ACTIVATION_MAX)
        for name, layer, peak in zip(KERNELS, network, inputs, strict=True):
            # These sums in float64 are exact whenever they are small enough to pass the check.
            weights = np.abs(layer.kernel.astype(np.float64)).sum(axis=(0, 1, 2))
            if np.any(weights * peak + np.abs(layer.bias.astype(np.float64)) >= 2.0**53):
                raise unusable(f"sums of {name} reach 2**53")
            if np.any(np.abs(layer.shift.astype(np.int64)) > MAX_SHIFT):
                raise unusable(f"{name}.shift exceeds {MAX_SHIFT}")


def unusable(reason: str) -> UserError:
    """Returns the error about arrays that no export writes."""
    return UserError(f"the coding tables are unusable, {reason}: export the model again")
