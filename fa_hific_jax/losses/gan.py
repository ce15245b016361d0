"""Adversarial losses of the discriminator and of the generator, from logits."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.errors import UserError
from fa_hific_jax.ops import at_least_float32
from fa_hific_jax.settings.loss import GAN_KINDS


def discriminator_loss(
    logits_real: Float[Array, "*r"],
    logits_fake: Float[Array, "*f"],
    kind: str,
    weight: Float[Array, " b"] | None = None,
) -> Float[Array, ""]:
    """Returns the loss that the discriminator minimizes; p = sigmoid(logits).

    "non_saturating": mean(-log p_real) + mean(-log(1 - p_fake)) (Goodfellow et al. 2014), the sum
    of both terms as in HiFiC, not their average.
    "least_squares": (mean((p_real - 1)^2) + mean(p_fake^2)) / 2, on probabilities as in the PyTorch
    HiFiC of J. Tan; Mao et al. 2017 apply it to logits.

    Args:
      logits_real, logits_fake: logits of originals and of decoded images, with images on axis 0.
      kind: one of GAN_KINDS.
      weight: factor on the terms of each image, applied before the mean; None for 1.

    Raises:
      UserError: kind is not one of GAN_KINDS.
    """
    _check(kind)
    logits_real, logits_fake = at_least_float32(logits_real), at_least_float32(logits_fake)
    if kind == "non_saturating":
        real, fake = jax.nn.softplus(-logits_real), jax.nn.softplus(logits_fake)
        return _mean(real, weight) + _mean(fake, weight)
    off_real = jnp.square(jax.nn.sigmoid(logits_real) - 1.0)
    off_fake = jnp.square(jax.nn.sigmoid(logits_fake))
    return 0.5 * (_mean(off_real, weight) + _mean(off_fake, weight))


def generator_loss(logits_fake: Float[Array, "*f"], kind: str) -> Float[Array, ""]:
    """Returns the adversarial loss that the generator minimizes; p = sigmoid(logits).

    "non_saturating": mean(-log p_fake). "least_squares": mean((p_fake - 1)^2) / 2.

    Raises:
      UserError: kind is not one of GAN_KINDS.
    """
    _check(kind)
    logits_fake = at_least_float32(logits_fake)
    if kind == "non_saturating":
        return jnp.mean(jax.nn.softplus(-logits_fake))
    return 0.5 * jnp.mean(jnp.square(jax.nn.sigmoid(logits_fake) - 1.0))


def _mean(values: Float[Array, "*v"], weight: Float[Array, " b"] | None) -> Float[Array, ""]:
    if weight is not None:
        values = values * weight.reshape(-1, *[1] * (values.ndim - 1))
    return jnp.mean(values)


def _check(kind: str) -> None:
    if kind not in GAN_KINDS:
        raise UserError(f"GAN loss {kind!r} is unknown: choose {' or '.join(GAN_KINDS)}")
