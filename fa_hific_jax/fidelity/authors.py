"""The norm and the blur of the FA-HiFiC authors' code, whose faults the defaults do not have."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.blur import separable_blur
from fa_hific_jax.errors import UserError
from fa_hific_jax.fidelity.variants import LEGACY_SIDE


class PositionNorm(nn.Module):
    """Normalization of each channel over all positions, with a gain and an offset per position.

    This is LayerNorm over (height, width). Its parameters, scale and bias, have the size of the
    first features it sees and fit no other: those raise a UserError.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        height, width = x.shape[1:3]
        if self.has_variable("params", "scale"):
            rows, columns = self.get_variable("params", "scale").shape
            if (rows, columns) != (height, width):
                raise UserError(
                    f"the legacy FCM takes features of {rows} x {columns}, not {height} x {width}: "
                    f"give images of {LEGACY_SIDE} x {LEGACY_SIDE} pixels or choose another "
                    "model.fcm"
                )
        scale = self.param("scale", nn.initializers.ones, (height, width))
        bias = self.param("bias", nn.initializers.zeros, (height, width))
        normalized = ops.normalized(x, (1, 2))
        return (normalized * scale[None, :, :, None] + bias[None, :, :, None]).astype(x.dtype)


def legacy_gaussian_blur(
    x: ops.Image, sigma: Float[Array, ""], size: int
) -> Float[Array, "b blurred_h blurred_w 1"]:
    """Returns the sum of all channels, blurred with zeros around the image, which darkens borders.

    The authors' kernel (src/network/gaussian_kernel.py) is repeated over output and input channels,
    so that all output channels are the same; one is returned. With an even size the result has a
    row and a column more than x. A size not in 3 to 15 raises a UserError.
    """
    x = jnp.sum(ops.at_least_float32(x), axis=-1, keepdims=True)
    return separable_blur(x, sigma, size, "constant")
