"""The norm of the FA-HiFiC authors' FCM, which fixes the size of the image."""

import flax.linen as nn
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.errors import UserError
from fa_hific_jax.fidelity.variants import LEGACY_SIDE


class PositionNorm(nn.Module):
    """Normalization of each channel over all positions, with a gain and an offset per position.

    This is LayerNorm over (height, width) in the FA-HiFiC authors' code. Its parameters, scale and
    bias, have the size of the first features it sees and fit no other.

    Raises:
      UserError: x is of another size.
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
