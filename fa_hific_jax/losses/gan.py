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
    """Returns the loss that the discriminator minimizes; p = sigmoid(logits), images on axis 0.

    "non_saturating": mean(-log p_real) + mean(-log(1 - p_fake)) (Goodfellow et al. 2014), the sum
    of both terms as in HiFiC, not their average.
    "least_squares": (mean((p_real - 1)^2) + mean(p_fake^2)) / 2, on probabilities as in the PyTorch
    HiFiC of J. Tan; Mao et al. 2017 apply it to logits.

    The terms of each image are multiplied by its `weight` before the mean. An unknown kind raises a
    UserError.
    """
    real, fake = _costs(logits_real, kind, real=True), _costs(logits_fake, kind, real=False)
    if weight is not None:
        real, fake = (c * weight.reshape(-1, *[1] * (c.ndim - 1)) for c in (real, fake))
    return jnp.mean(real) + jnp.mean(fake)


def generator_loss(logits_fake: Float[Array, "*f"], kind: str) -> Float[Array, ""]:
    """Returns the adversarial loss that the generator minimizes; p = sigmoid(logits).

    "non_saturating": mean(-log p_fake). "least_squares": mean((p_fake - 1)^2) / 2.
    """
    return jnp.mean(_costs(logits_fake, kind, real=True))


def _costs(logits: Float[Array, "*l"], kind: str, real: bool) -> Float[Array, "*l"]:
    """Returns the cost of each logit if it should say that its image is real, or is not."""
    if kind not in GAN_KINDS:
        raise UserError(f"GAN loss {kind!r} is unknown: choose {' or '.join(GAN_KINDS)}")
    logits = at_least_float32(logits)
    if kind == "non_saturating":
        return jax.nn.softplus(-logits if real else logits)
    return 0.5 * jnp.square(jax.nn.sigmoid(logits) - float(real))
