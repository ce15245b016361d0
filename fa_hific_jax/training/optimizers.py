"""Optimizers of the autoencoder and the discriminator, and their learning rates.

Muon gives steps of convolution kernels nearly equal singular values: Jordan et al., "Muon: An
optimizer for hidden layers in neural networks", 2024 (KellerJordan/Muon). The length of its steps
follows Liu et al., "Muon is Scalable for LLM Training", arXiv 2502.16982.
"""

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers

from fa_hific_jax.settings import OptimizerConfig

# Iterations towards equal singular values. Five are usual, but on a CPU they take a large share of
# a short step, and a trial of 170 steps lost nothing with 3.
NEWTON_SCHULZ_STEPS = 3
# Root mean square of a step's elements, relative to the learning rate. It is close to Adam's, so
# that Adam's learning rates can be kept (Liu et al.).
ADAMS_RMS = 0.2


def optimizers(
    config: OptimizerConfig,
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """Returns the optimizers of the autoencoder (with the DSL's sigmas) and the discriminator."""
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    rate = learning_rate(config.learning_rate, config)
    generator = muon(rate) if config.kind == "muon" else optax.adam(rate)
    discriminator = optax.adam(learning_rate(config.discriminator_learning_rate, config))
    return optax.chain(clip, generator), optax.chain(clip, discriminator)


def learning_rate(initial: float, config: OptimizerConfig) -> optax.Schedule:
    """Returns a schedule that rises linearly to `initial` and drops at each of `drop_steps`.

    It begins at `initial / warmup_steps`, not at 0.
    """
    drops = optax.piecewise_constant_schedule(
        initial, dict.fromkeys(config.drop_steps, config.drop_factor)
    )
    ramp = max(config.warmup_steps, 1)
    return lambda step: drops(step) * jnp.minimum((step + 1) / ramp, 1.0)


def muon(rate: optax.Schedule) -> optax.GradientTransformation:
    """Returns Muon for convolution kernels, seen as matrices from patches to channels.

    All other parameters have Adam: biases, norms, priors, gains, and the convolution that makes the
    image, whose three channels are the output rather than hidden features (Jordan et al.).
    """
    return optax.contrib.muon(
        rate,
        ns_steps=NEWTON_SCHULZ_STEPS,
        consistent_rms=ADAMS_RMS,
        muon_weight_dimension_numbers=matrices,
    )


def matrices(params):
    """Returns for each parameter the axes of its matrix's rows and columns, None for Adam."""
    kernel = MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
    return jax.tree.map(
        lambda leaf: kernel if leaf.ndim == 4 and leaf.shape[-1] > 3 else None, params
    )
