"""What coding takes from the networks: integers made of their parameters, and estimates of bits."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32

from fa_hific_jax.codec import integer_synthesis
from fa_hific_jax.codec.coding import EntropyModel, Quantized
from fa_hific_jax.entropy import factorized, tables
from fa_hific_jax.entropy.gaussian import LIKELIHOODS, bits
from fa_hific_jax.entropy.tables import SCALE_TABLE
from fa_hific_jax.models import MEDIAN, autoencoder
from fa_hific_jax.models.autoencoder import ModelConfig


def entropy_model(
    config: ModelConfig,
    params_hyperprior: Any,
    calibration: Iterable[Int32[np.ndarray, "_ _ _"]] | None = None,
) -> EntropyModel:
    """Returns coding tables and integer synthesis for the parameters of a `Hyperprior`.

    `calibration` holds hyper-latents of images, which determine the resolution of the integers; by
    default they are drawn from the prior.

    Raises:
      UserError: a parameter is not finite.
    """
    prior = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params_hyperprior["prior"])
    layers = factorized.layers_of(prior)
    medians = params_hyperprior.get(MEDIAN, np.zeros(config.hyper_channels))
    medians = np.asarray(medians, np.float64)[:, None]
    z_tables = tables.factorized_tables(
        lambda values: factorized.cdf_logits(layers, values + medians, np), config.hyper_channels
    )
    y_tables = tables.CONDITIONAL_TABLES[config.likelihood](tables.middle_scales(SCALE_TABLE))
    latents = (
        integer_synthesis.calibration_latents(z_tables) if calibration is None else calibration
    )
    return EntropyModel(
        z_tables, y_tables, integer_synthesis.quantize_synthesis(params_hyperprior, latents)
    )


def estimated_bits(config: ModelConfig, params: Any, quantized: Quantized) -> float:
    """Returns the bits of the symbols under the densities of the float model, as in training.

    `params` are all parameters of an `Autoencoder`, because its float synthesis gives the scales.
    """
    return float(_bits(config, params, quantized.z, quantized.y))


@functools.partial(jax.jit, static_argnums=0)
def _bits(config, params, z, y):
    z, net = z[None].astype(jnp.float32), autoencoder.bind(config, params)
    _, scale = net.hyperprior.synthesis(z)
    likelihood = LIKELIHOODS[config.likelihood]
    of_y = likelihood(y[None].astype(jnp.float32), jnp.zeros_like(scale), scale)
    of_z = net.hyperprior.prior(z)
    return sum(jnp.sum(bits(values, config.variant)) for values in (of_z, of_y))
