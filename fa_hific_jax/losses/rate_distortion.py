"""Distortion on the 8-bit scale and the rate weight that steers towards a target."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.ops import Image, at_least_float32

Scalar = Float[Array, ""]


def mse_255(x: Image, x_hat: Image) -> Scalar:
    """mean (255 x - 255 x_hat)^2 of images in [0, 1]: the distortion of HiFiC.

    The code of the FA-HiFiC authors divides it by a further 255; this does not.
    """
    return jnp.mean(jnp.square(255.0 * (at_least_float32(x) - at_least_float32(x_hat))))


def weighted_rate(
    bpp_noisy: Scalar,
    bpp_rounded: Scalar,
    *,
    target: float | Scalar,
    lambda_above: float | Scalar,
    lambda_below: float | Scalar,
) -> tuple[Scalar, Scalar]:
    """(lmbda * bpp_noisy, lmbda): lambda_above where bpp_rounded > target, else lambda_below.

    The rate constraint of HiFiC (Mentzer et al. 2020): a strong pull while the rate is above the
    target, a weak one otherwise. The gradient reaches bpp_noisy only: bpp_rounded, the rate that
    coding would come to, merely throws the switch.

    Args:
      bpp_noisy, bpp_rounded: bits per pixel, estimated with noise and with rounding.
      target: bits per pixel.
      lambda_above, lambda_below: weights (lambda^(a), lambda^(b) of the paper).
    """
    lmbda = jnp.where(bpp_rounded > target, lambda_above, lambda_below).astype(bpp_noisy.dtype)
    return lmbda * bpp_noisy, lmbda
