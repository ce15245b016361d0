"""The distortion on the 8-bit scale, and HiFiC's weight of the rate."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.ops import Image, at_least_float32

Scalar = Float[Array, ""]


def mse_255(x: Image, x_hat: Image) -> Scalar:
    """Returns mean (255 x - 255 x_hat)^2 of images in [0, 1], the distortion of HiFiC.

    The code of the FA-HiFiC authors divides it by a further 255; this function does not.
    """
    return jnp.mean(jnp.square(255.0 * (at_least_float32(x) - at_least_float32(x_hat))))


def switch_lambda(
    bpp_rounded: Scalar,
    target: float | Scalar,
    lambda_above: float | Scalar,
    lambda_below: float | Scalar,
) -> Scalar:
    """Returns the weight of the rate: lambda_above if bpp_rounded > target, else lambda_below.

    This is the rate constraint of HiFiC (Mentzer et al. 2020, lambda^(a) and lambda^(b)): a strong
    pull while the rate is above the target, a weak one otherwise. It weights the differentiable
    rate `bpp_noisy`; `bpp_rounded`, the bits per pixel of the rounded symbols under the model,
    estimates the coded rate, and no gradient passes through it.
    """
    return jnp.where(bpp_rounded > target, lambda_above, lambda_below).astype(bpp_rounded.dtype)
