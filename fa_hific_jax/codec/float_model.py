"""What coding takes from the networks: integers made of their parameters, and estimates of bits."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int32

from fa_hific_jax.codec import integer_synthesis as integers
from fa_hific_jax.codec.coding import EntropyModel
from fa_hific_jax.codec.integer_synthesis import IntegerSynthesis, Layer, Network, Values
from fa_hific_jax.entropy import factorized, tables
from fa_hific_jax.entropy.gaussian import LIKELIHOODS, bits
from fa_hific_jax.entropy.tables import PRECISION, SCALE_TABLE, Tables
from fa_hific_jax.errors import UserError
from fa_hific_jax.models import LOG_UNIT, MEDIAN, autoencoder
from fa_hific_jax.models.autoencoder import ModelConfig

WEIGHT_BITS = 15  # without the sign
ACTIVATION_BITS = 16  # of the largest activation in the calibration
BIAS_BITS = 48
MAX_EXPONENT = 44  # of sums: thresholds up to 256 * 2**44 are exact in float64
MAX_ACTIVATION_EXPONENT = 24
_WEIGHTS = (1 - 2**WEIGHT_BITS, 2**WEIGHT_BITS - 1)  # least and largest

Calibration = Iterable[Int32[np.ndarray, "_ _ _"]]


def entropy_model(
    config: ModelConfig, params_hyperprior: Any, calibration: Calibration | None = None
) -> EntropyModel:
    """Returns coding tables and integer synthesis for the parameters of a `Hyperprior`.

    `calibration` is that of `quantize_synthesis`, by default `calibration_latents`.
    """
    prior = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params_hyperprior["prior"])
    layers = factorized.layers_of(prior)
    medians = params_hyperprior.get(MEDIAN, np.zeros(config.hyper_channels))
    medians = np.asarray(medians, np.float64)[:, None]
    z_tables = tables.factorized_tables(
        lambda values: factorized.cdf_logits(layers, values + medians, np), config.hyper_channels
    )
    y_tables = tables.CONDITIONAL_TABLES[config.likelihood](tables.middle_scales(SCALE_TABLE))
    latents = calibration_latents(z_tables) if calibration is None else calibration
    return EntropyModel(z_tables, y_tables, quantize_synthesis(params_hyperprior, latents))


@functools.partial(jax.jit, static_argnums=0)
def estimated_bits(config: ModelConfig, params: Any, quantized: Any) -> Float[Array, ""]:
    """Returns the bits of `Quantized` symbols under the densities of an `Autoencoder`."""
    z, y, _ = jax.tree.map(lambda symbols: symbols[None].astype(jnp.float32), quantized)
    net = autoencoder.bind(config, params)
    _, scale = net.hyperprior.synthesis(z)
    of_y = LIKELIHOODS[config.likelihood](y, jnp.zeros_like(scale), scale)
    of_z = net.hyperprior.prior(z)
    return jnp.sum(bits(of_z, config.variant)) + jnp.sum(bits(of_y, config.variant))


def calibration_latents(
    z_tables: Tables, shape: tuple[int, int, int] = (4, 8, 8), seed: int = 0
) -> Int32[np.ndarray, "n hz wz cz"]:
    """Returns hyper-latents of shape (n, hz, wz) drawn from their prior, to calibrate with."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, 2**PRECISION, (len(z_tables.length), *shape))
    for channel, (cdf, length) in enumerate(zip(z_tables.cdf, z_tables.length, strict=True)):
        bins = np.searchsorted(cdf[:length], drawn[channel], side="right") - 1
        drawn[channel] = bins + z_tables.offset[channel]
    return np.moveaxis(drawn, 0, -1).astype(np.int32)


def quantize_synthesis(params_hyperprior: Any, calibration: Calibration) -> IntegerSynthesis:
    """Quantizes the networks `synthesis_mean` and `synthesis_scale` of a `Hyperprior`.

    Its medians, if it has any, become weights of MEDIAN_CHANNELS. `calibration` holds hyper-latents
    (hz, wz, cz), which determine the resolution of the activations: others may give activations up
    to 64 times as large before they saturate. The same arguments give the same integers. Raises a
    UserError if there is no calibration, or a weight is not finite or too large.
    """
    medians = params_hyperprior.get(MEDIAN)
    constants = () if medians is None else integers.MEDIAN_CHANNELS
    latents = [
        np.clip(
            integers.with_constants(z, constants), -integers.LATENT_MAX, integers.LATENT_MAX
        ).astype(np.float64)
        for z in calibration
    ]
    if not latents:
        raise UserError("the calibration holds no hyper-latents: give at least one image")
    params_mean = dict(params_hyperprior["synthesis_mean"])
    # Scales above entry j belong to row j + 1 or later. The last row has no upper bound.
    edges = SCALE_TABLE[:-1].astype(np.float64)
    if LOG_UNIT in params_mean:
        # This last layer gives logarithms of scales, and means in a unit for each channel.
        edges = np.log(edges)
        unit = np.exp(np.asarray(params_mean[LOG_UNIT], np.float64))
        last = params_mean["conv2"]["Conv_0"].items()
        params_mean["conv2"] = {name: np.asarray(leaf) * unit for name, leaf in last}
    with integers.one_blas_thread():
        mean = _quantize_network(params_mean, latents, medians)
        scale = _quantize_network(params_hyperprior["synthesis_scale"], latents, medians)
    thresholds = np.floor(np.ldexp(edges[None], scale.conv2.shift[:, None])).astype(np.int64)
    synthesis = IntegerSynthesis(mean, scale, thresholds, constants)
    integers.check_sums(synthesis)
    return synthesis


def swapped_kernels(params_hyperprior: Any, synthesis: IntegerSynthesis) -> dict[str, Any]:
    """Replaces each kernel of a `Hyperprior` that `synthesis` has by an "exponent", or back.

    The exponent and the integers give the kernel as float32, to 2**-15 of the largest weight of a
    channel.
    """
    leaves: dict[tuple[str, ...], Any] = flatten_dict(params_hyperprior)
    networks = {"synthesis_mean": synthesis.mean, "synthesis_scale": synthesis.scale}
    for path, given in list(leaves.items()):
        if path[0] not in networks or path[-1] not in ("kernel", "exponent"):
            continue
        del leaves[path]
        layer = getattr(networks[path[0]], path[1])
        # This is the float kernel but for a power of two: the exponent of the layer's inputs less,
        # in a hidden layer, that of its outputs.
        kernel = np.ldexp(layer.kernel.astype(np.float64), -layer.shift)
        if path[1] == "up0":
            kernel = kernel[:, :, : kernel.shape[2] - len(synthesis.constants)]
        elif path[1] == "conv2":
            kernel /= np.exp(np.float64(leaves.get((path[0], LOG_UNIT), 0.0)))
        if path[-1] == "exponent":
            leaves[*path[:-1], "kernel"] = np.ldexp(kernel, given).astype(np.float32)
        else:
            place = np.unravel_index(np.argmax(np.abs(kernel)), kernel.shape)
            ratio = np.abs(np.float64(given[place])) / max(np.abs(kernel[place]), 1e-300)
            exponent = np.rint(np.log2(ratio)) if ratio > 0 else 0
            leaves[*path[:-1], "exponent"] = np.asarray(exponent, np.int32)
    return unflatten_dict(leaves)


def _quantize_network(params: Mapping[str, Any], latents: list[Values], medians: Any) -> Network:
    layers, exponent, x = {}, 0, latents
    for name in integers.KERNELS:
        layer = _quantize_layer(name, params[name], exponent, medians if name == "up0" else None)
        if name != "conv2":
            sums = [integers.upsample(layer, np.pad(each, ((1, 1), (1, 1), (0, 0)))) for each in x]
            peak = max(float(np.max(np.ldexp(each, -layer.shift))) for each in sums)
            exponent = int(
                min(ACTIVATION_BITS - np.frexp(max(peak, 0.0))[1], MAX_ACTIVATION_EXPONENT)
            )
            shift = layer.shift - exponent
            half = np.where(shift > 0, np.ldexp(1.0, shift - 1), 0.0).astype(np.int64)
            layer = Layer(layer.kernel, layer.bias + half, shift)
            x = [integers.activations(each + half, shift) for each in sums]
        layers[name] = layer
    return Network(**layers)


def _quantize_layer(name: str, params: Mapping[str, Any], exponent_in: int, medians: Any) -> Layer:
    """Returns a layer at the finest resolution that fits; sums / 2**shift are its float outputs.

    With medians, the kernel has further inputs MEDIAN_CHANNELS. |x| < 2**frexp(x)[1].
    """
    params = params.get("Conv_0", params)
    kernel, bias = (np.asarray(params[key], np.float64) for key in ("kernel", "bias"))
    if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
        why = f"the weights of {name} in the hyper-synthesis are not finite"
        raise UserError(f"{why}: take a checkpoint from before the training diverged")
    peak = np.max(np.abs(kernel), axis=(0, 1, 2))
    added = np.zeros_like(kernel[:, :, 0])  # what each tap adds with the medians
    if medians is not None:
        # In this order, since another may round otherwise.
        for channel, median in enumerate(np.asarray(medians, np.float64).tolist()):
            added += kernel[:, :, channel] * median
        peak = np.maximum(peak, np.max(np.abs(added), axis=(0, 1)) / integers.MEDIAN_CHANNELS[0])
    shift = np.minimum(WEIGHT_BITS - np.frexp(peak)[1] + exponent_in, BIAS_BITS - np.frexp(bias)[1])
    shift = np.minimum(shift, MAX_EXPONENT).astype(np.int32)
    weights = np.rint(np.ldexp(kernel, shift - exponent_in))
    if medians is not None:
        added = np.rint(np.ldexp(added, shift))
        coarse = np.clip(np.rint(added / integers.MEDIAN_CHANNELS[0]), *_WEIGHTS)
        fine = added - coarse * integers.MEDIAN_CHANNELS[0]
        weights = np.concatenate([weights, np.stack([coarse, fine], axis=2)], axis=2)
    bias = np.rint(np.ldexp(bias, shift)).astype(np.int64)
    return Layer(np.clip(weights, *_WEIGHTS).astype(np.int16), bias, shift)
