"""Mean and table row of every latent from integer z, the same bits on every machine.

The range decoder must pick the encoder's table for every symbol: a float network that rounds
otherwise on another device, with another number of threads or in other tiles makes a file
unreadable. So the two hyper-synthesis networks are quantized once, when a model is exported, and
run on the host in integers, as Balle et al. 2019 ("Integer networks for data compression with
latent-variable models") propose; here after training, without loss of rate worth mentioning.

The integers are carried in float64, because BLAS multiplies float64 matrices and not integers.
Every sum stays below 2**53 in magnitude however its terms are grouped (`_check_sums` proves it from
the weights), so no operation ever rounds: order of summation, threads, tiles and fused
multiply-adds cannot show. A value v is held as the integer v * 2**exponent; exponents are chosen
per output channel for weights and per layer for activations, so that rescaling is a shift.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int16, Int32, Int64, UInt8

from fa_hific_jax.entropy.gaussian import SCALE_TABLE
from fa_hific_jax.entropy.tables import PRECISION, Tables
from fa_hific_jax.errors import UserError
from fa_hific_jax.models.hyperprior import LOG_UNIT

HyperLatents = Int32[np.ndarray, "hz wz cz"]
Values = Float64[np.ndarray, "_ _ _"]

STRIDE = 4
"""Latents to one hyper-latent, in both directions."""

WEIGHT_BITS = 15  # and the sign
ACTIVATION_BITS = 16  # of the largest activation in the calibration
ACTIVATION_MAX = 2**22  # where activations saturate: 64 times the largest of the calibration
LATENT_MAX = 2**15 - 1  # where |z| saturates
BIAS_BITS = 48
MAX_EXPONENT = 44  # of sums: the thresholds, up to 256 * 2**44, are exact in float64
MAX_ACTIVATION_EXPONENT = 24
MAX_SHIFT = 64  # beyond which a mean might not be a finite float32
STRIP = 2**22  # activations of one layer that are held at a time, 32 MiB

KERNELS = {"up0": 5, "up1": 5, "conv2": 3}
"""Side of the kernel of each layer."""


class Layer(NamedTuple):
    """Sums are `kernel * x + bias`; what they stand for, or the next layer sees, is / 2**shift."""

    kernel: Int16[np.ndarray, "k k i o"]
    bias: Int64[np.ndarray, " o"]
    shift: Int32[np.ndarray, " o"]


class Network(NamedTuple):
    """Quantized `HyperSynthesis`."""

    up0: Layer
    up1: Layer
    conv2: Layer


class IntegerSynthesis(NamedTuple):
    """Both networks, and per latent channel the sums of `scale` above which the next row begins."""

    mean: Network
    scale: Network
    thresholds: Int64[np.ndarray, "cy rows"]


def parameters(
    synthesis: IntegerSynthesis,
    z: HyperLatents,
    rows: tuple[int, int] | None = None,
    strip: int | None = None,
) -> tuple[Float32[np.ndarray, "hy wy cy"], UInt8[np.ndarray, "hy wy cy"]]:
    """Mean, and row in the tables of SCALE_TABLE, of each latent, hy = 4 hz and wy = 4 wz.

    The row is the one that `tables.scale_indexes` finds for the scale, decided by comparing
    integers. The mean is an integer over a power of two, rounded to float32 once. |z| saturates at
    2**15 - 1. `rows` = (start, stop) asks for these rows of the latents alone; `strip` sets how
    many are computed at a time, which bounds memory and changes nothing else.
    """
    height, width, channels = z.shape
    start, stop = rows or (0, STRIDE * height)
    if not 0 <= start < stop <= STRIDE * height:
        raise ValueError(f"rows {start} to {stop} are not within 0 to {STRIDE * height}")
    strip = strip or max(STRIDE, STRIP // (STRIDE * width * channels))
    shape = (stop - start, STRIDE * width, len(synthesis.thresholds))
    mean, indexes = np.empty(shape, np.float32), np.empty(shape, np.uint8)
    for first in range(start, stop, strip):
        last = min(first + strip, stop)
        part = slice(first - start, last - start)
        mean[part] = _sums(synthesis.mean, z, first, last) * _power(-synthesis.mean.conv2.shift)
        indexes[part] = _table_rows(_sums(synthesis.scale, z, first, last), synthesis.thresholds)
    return mean, indexes


def quantize_synthesis(
    params_hyperprior: Mapping[str, Any], calibration: Iterable[Int32[np.ndarray, "_ _ _"]]
) -> IntegerSynthesis:
    """The networks `synthesis_mean` and `synthesis_scale` of a `Hyperprior`, in integers.

    `calibration` is an array (n, hz, wz, cz) or several (hz, wz, cz): hyper-latents of images or
    of `calibration_latents`. They decide the resolution of the activations only; what other
    hyper-latents make larger has room for a factor of 64 and saturates beyond. The same arguments
    give the same integers on every machine on which SCALE_TABLE is the same.

    Raises:
      UserError: there is no calibration, or a weight is not finite or too large.
    """
    latents = [_clip_latents(z) for z in calibration]
    if not latents:
        raise UserError("the calibration holds no hyper-latents: give those of one image or more")
    params_mean = params_hyperprior["synthesis_mean"]
    # Scales above entry j belong to row j + 1 or later; the last row has no upper end.
    edges = SCALE_TABLE[:-1].astype(np.float64)
    if LOG_UNIT in params_mean:
        params_mean = _in_unit(params_mean)
        edges = np.log(edges)
    mean = _quantize_network(params_mean, latents)
    scale = _quantize_network(params_hyperprior["synthesis_scale"], latents)
    edges = edges[None] * _power(scale.conv2.shift)[:, None]
    synthesis = IntegerSynthesis(mean, scale, np.floor(edges).astype(np.int64))
    _check_sums(synthesis)
    return synthesis


def calibration_latents(
    z_tables: Tables, shape: tuple[int, int, int] = (4, 8, 8), seed: int = 0
) -> Int32[np.ndarray, "n hz wz cz"]:
    """Hyper-latents drawn from the tables of their prior, for a calibration without images.

    `shape` is (n, hz, wz). A draw of the escape bin is the first symbol above the row.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, 2**PRECISION, (len(z_tables.length), *shape))
    for channel, (cdf, length) in enumerate(zip(z_tables.cdf, z_tables.length, strict=True)):
        bins = np.searchsorted(cdf[:length], drawn[channel], side="right") - 1
        drawn[channel] = bins + z_tables.offset[channel]
    return np.moveaxis(drawn, 0, -1).astype(np.int32)


def to_arrays(synthesis: IntegerSynthesis) -> dict[str, np.ndarray]:
    """Everything under flat names, to be saved with the model."""
    arrays = {"thresholds": synthesis.thresholds}
    for network in ("mean", "scale"):
        for layer in KERNELS:
            fields = getattr(getattr(synthesis, network), layer)._asdict()
            arrays |= {f"{network}.{layer}.{key}": array for key, array in fields.items()}
    return arrays


def from_arrays(arrays: Mapping[str, np.ndarray]) -> IntegerSynthesis:
    """Inverse of `to_arrays`, for arrays of whatever origin.

    Raises:
      UserError: an array is missing, has another type or shape than the rest needs, or values under
        which sums would not be exact.
    """
    mean, scale = _read_network(arrays, "mean"), _read_network(arrays, "scale")
    latent_channels = scale.conv2.kernel.shape[-1]
    thresholds = _read(arrays, "thresholds", np.int64, (latent_channels, len(SCALE_TABLE) - 1))
    for layer, axis in (("up0", 2), ("conv2", 3)):
        sides = [getattr(network, layer).kernel.shape[axis] for network in (mean, scale)]
        if sides[0] != sides[1]:
            raise _unusable(
                f"{layer}.kernel has {sides[0]} channels for mean, {sides[1]} for scale"
            )
    if np.any(thresholds[:, 1:] < thresholds[:, :-1]):
        raise _unusable("thresholds is not sorted")
    synthesis = IntegerSynthesis(mean, scale, thresholds)
    _check_sums(synthesis)
    return synthesis


def _sums(network: Network, z: HyperLatents, start: int, stop: int) -> Values:
    """Rows start to stop of the last layer, from no more of the rows below than they see."""
    height = z.shape[0]
    # Upsampling makes rows in pairs: pair i of a layer sees rows i - 1 to i + 1 below.
    first1, last1 = max(start - 1, 0) // 2, min((stop + 2) // 2, 2 * height)
    first0, last0 = max(first1 - 1, 0) // 2, min((last1 + 2) // 2, height)
    x = _clip_latents(_window(z, 0, first0 - 1, last0 + 1, height))
    x = _activations(_upsample(network.up0, x), network.up0.shift)
    x = _window(x, 2 * first0, first1 - 1, last1 + 1, 2 * height)
    x = _activations(_upsample(network.up1, x), network.up1.shift)
    x = _window(x, 2 * first1, start - 1, stop + 1, 4 * height)
    return _correlate(x, network.conv2.kernel) + network.conv2.bias


def _window(x: np.ndarray, first: int, start: int, stop: int, height: int) -> np.ndarray:
    """Rows start to stop of an image of which x is the rows from `first`, zeros around it."""
    inside = x[max(start, 0) - first : min(stop, height) - first]
    return np.pad(inside, ((max(-start, 0), max(stop - height, 0)), (1, 1), (0, 0)))


def _upsample(layer: Layer, x: Values) -> Values:
    """Sums of `models.layers.Upsample`, of x with a border of one pixel.

    Output 2 i + r sees inputs i - 1, i, i + 1 through taps 0, 2, 4 for r = 0, and inputs i, i + 1
    through taps 1, 3 for r = 1.
    """
    height, width, channels = x.shape[0] - 2, x.shape[1] - 2, layer.bias.size
    sums = np.empty((height, 2, width, 2, channels))
    for row, column in np.ndindex(2, 2):
        taps = layer.kernel[row::2, column::2]
        sums[:, row, :, column] = _correlate(x[row:, column:], taps)
    sums += layer.bias
    return sums.reshape(2 * height, 2 * width, channels)


def _correlate(x: Values, kernel: Int16[np.ndarray, "kh kw i o"]) -> Values:
    """Every place of the kernel within x, one product of matrices for each of its taps."""
    rows, columns, _, outputs = kernel.shape
    height, width, channels = x.shape[0] - rows + 1, x.shape[1] - columns + 1, x.shape[2]
    sums = np.zeros((height * width, outputs))
    for row, column in np.ndindex(rows, columns):
        shifted = x[row : row + height, column : column + width].reshape(-1, channels)
        sums += shifted @ kernel[row, column].astype(np.float64)
    return sums.reshape(height, width, outputs)


def _activations(sums: Values, shift: Int32[np.ndarray, " o"]) -> Values:
    """ReLU, shifted right; rounding is half up by what `_quantize_network` adds to the bias."""
    return np.clip(np.floor(sums * _power(-shift)), 0, ACTIVATION_MAX)


def _table_rows(
    sums: Values, thresholds: Int64[np.ndarray, "cy rows"]
) -> UInt8[np.ndarray, "_ _ _"]:
    channels = np.moveaxis(sums, -1, 0).reshape(len(thresholds), -1).astype(np.int64)
    rows = [
        np.searchsorted(edges, values) for edges, values in zip(thresholds, channels, strict=True)
    ]
    return np.stack(rows, axis=-1).astype(np.uint8).reshape(sums.shape)


def _clip_latents(z: HyperLatents) -> Values:
    return np.clip(z, -LATENT_MAX, LATENT_MAX).astype(np.float64)


def _power(exponent: Int32[np.ndarray, " o"]) -> Float64[np.ndarray, " o"]:
    """2**exponent, which multiplies without rounding."""
    return np.ldexp(1.0, exponent)


def _in_unit(params: Mapping[str, Any]) -> dict[str, Any]:
    """The network whose last layer puts out means in steps, not in units of each channel."""
    unit = np.exp(np.asarray(params[LOG_UNIT], np.float64))
    last = {name: np.asarray(leaf) * unit for name, leaf in params["conv2"]["Conv_0"].items()}
    return dict(params) | {"conv2": {"Conv_0": last}}


def _quantize_network(params: Mapping[str, Any], latents: list[Values]) -> Network:
    layers, exponent, x = {}, 0, latents
    for name in KERNELS:
        layer = _quantize_layer(name, params[name], exponent)
        if name != "conv2":
            sums = [_upsample(layer, _window(each, 0, -1, len(each) + 1, len(each))) for each in x]
            peak = max(float(np.max(each * _power(-layer.shift))) for each in sums)
            exponent = int(min(ACTIVATION_BITS - _digits(max(peak, 0.0)), MAX_ACTIVATION_EXPONENT))
            shift = layer.shift - exponent
            half = np.where(shift > 0, _power(shift - 1), 0.0).astype(np.int64)
            layer = Layer(layer.kernel, layer.bias + half, shift)
            x = [_activations(each + half, shift) for each in sums]
        layers[name] = layer
    return Network(**layers)


def _quantize_layer(name: str, params: Mapping[str, Any], exponent_in: int) -> Layer:
    """A layer whose shift leads to the values themselves, at the finest resolution that fits."""
    params = params.get("Conv_0", params)
    kernel, bias = (np.asarray(params[key], np.float64) for key in ("kernel", "bias"))
    if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
        raise UserError(
            f"the weights of {name} in the hyper-synthesis are not finite: "
            "take a checkpoint from before the training diverged"
        )
    peak = np.max(np.abs(kernel), axis=(0, 1, 2))
    shift = np.minimum(WEIGHT_BITS - _digits(peak) + exponent_in, BIAS_BITS - _digits(bias))
    shift = np.minimum(shift, MAX_EXPONENT).astype(np.int32)
    weights = np.rint(kernel * _power(shift - exponent_in))
    limit = 2**WEIGHT_BITS - 1
    return Layer(
        np.clip(weights, -limit, limit).astype(np.int16),
        np.rint(bias * _power(shift)).astype(np.int64),
        shift,
    )


def _digits(values):
    """The smallest exponent with |value| < 2**exponent, of each value."""
    return np.frexp(np.abs(values))[1]


def _check_sums(synthesis: IntegerSynthesis) -> None:
    """Raises a UserError unless every sum, and every part of one, is below 2**53 in magnitude."""
    for network in (synthesis.mean, synthesis.scale):
        inputs = (LATENT_MAX, ACTIVATION_MAX, ACTIVATION_MAX)
        for name, layer, peak in zip(KERNELS, network, inputs, strict=True):
            # Integers in float64: exact as long as the verdict is that they are small enough.
            weights = np.abs(layer.kernel.astype(np.float64)).sum(axis=(0, 1, 2))
            if np.any(weights * peak + np.abs(layer.bias.astype(np.float64)) >= 2.0**53):
                raise _unusable(f"sums of {name} reach 2**53")
            if np.any(np.abs(layer.shift.astype(np.int64)) > MAX_SHIFT):
                raise _unusable(f"{name}.shift exceeds {MAX_SHIFT}")


def _read_network(arrays: Mapping[str, np.ndarray], network: str) -> Network:
    layers, channels = [], None
    for name, side in KERNELS.items():
        kernel = _read(arrays, f"{network}.{name}.kernel", np.int16, (side, side, channels, None))
        channels = kernel.shape[-1]
        bias = _read(arrays, f"{network}.{name}.bias", np.int64, (channels,))
        shift = _read(arrays, f"{network}.{name}.shift", np.int32, (channels,))
        layers.append(Layer(kernel, bias, shift))
    return Network(*layers)


def _read(arrays: Mapping[str, np.ndarray], name: str, dtype: type, shape: tuple) -> np.ndarray:
    """One of the arrays; None in `shape` stands for one channel or more."""
    if name not in arrays:
        raise _unusable(f"{name} is missing")
    array = arrays[name]
    fits = len(shape) == array.ndim and all(
        side == wanted or (wanted is None and side > 0)
        for side, wanted in zip(array.shape, shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        wanted = str(shape).replace("None", "any")
        raise _unusable(f"{name} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {wanted}")
    return array


def _unusable(reason: str) -> UserError:
    return UserError(
        f"the integer hyper-synthesis is unusable, {reason}: "
        "export it again from a sound checkpoint"
    )
