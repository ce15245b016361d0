"""The blur of the FA-HiFiC authors' dynamic spectrum loss."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.blur import separable_blur
from fa_hific_jax.ops import Image, at_least_float32


def legacy_gaussian_blur(
    x: Image, sigma: Float[Array, ""], size: int
) -> Float[Array, "b blurred_h blurred_w 1"]:
    """Returns the sum of all channels, blurred with zeros around the image.

    The authors' code (src/network/gaussian_kernel.py) repeats the kernel over output and input
    channels, so that all output channels are the same; one is returned. Borders darken. With an
    even size the result has a row and a column more than x.

    Raises:
      UserError: size is not in 3 to 15.
    """
    x = jnp.sum(at_least_float32(x), axis=-1, keepdims=True)
    return separable_blur(x, sigma, size, "constant")
