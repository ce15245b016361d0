"""Rounding, gradient-bounded maximum, padding and normalization, which all parts share."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

try:
    from jax import enable_x64 as enable_x64  # for all modules that need float64
except ImportError:  # Before JAX 0.8.
    from jax.experimental import enable_x64 as enable_x64  # pyright: ignore

Image = Float[Array, "b h w c"]


def round_half_up(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns the nearest integers, halves upwards, as HiFiC and the codec of every model do.

    Only in the networks of `model.variant="neuralcompression"` halves go to the even neighbor.
    """
    return jnp.floor(x + 0.5)


def to_8_bits(x: Float[Array, "*s"]) -> UInt8[Array, "*s"]:
    """Returns 8-bit levels of values in [0, 1], which are clipped and rounded."""
    return round_half_up(jnp.clip(x, 0.0, 1.0) * 255.0).astype(jnp.uint8)


def straight_through_round(
    x: Float[Array, "*s"], halves: Literal["up", "even"] = "up"
) -> Float[Array, "*s"]:
    """Returns the nearest integers, with the gradient of the identity."""
    rounded = jnp.round if halves == "even" else round_half_up
    return x + jax.lax.stop_gradient(rounded(x) - x)


def lower_bound(x: Float[Array, "*s"], bound: float) -> Float[Array, "*s"]:
    """Returns max(x, bound), whose gradient still pulls values below the bound upwards.

    The gradient passes where x >= bound or where gradient descent would raise x (a negative
    incoming gradient); elsewhere it is 0. Same rule as `lower_bound` of TensorFlow Compression.
    """
    return _lower_bound(x, bound)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _lower_bound(x, bound):
    return jnp.maximum(x, jnp.asarray(bound, x.dtype))


def _lower_bound_backward(bound, x, grad):
    return (jnp.where((x >= bound) | (grad < 0), grad, jnp.zeros_like(grad)),)


_lower_bound.defvjp(lambda x, bound: (_lower_bound(x, bound), x), _lower_bound_backward)


def at_least_float32(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns x in float32, or as it is in float64: the precision of losses, rates and FFTs."""
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def pad_to_multiple(x: Image, multiple: int) -> Float[Array, "b _ _ c"]:
    """Returns x reflected at its bottom and right edges until `multiple` divides both sides."""
    bottom, right = (-side % multiple for side in x.shape[1:3])
    return jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0)), mode="reflect")


def normalized(
    x: Float[Array, "..."], axes: tuple[int, ...], where: Bool[Array, "..."] | None = None
) -> Float[Array, "..."]:
    """Returns (x - mean) / sqrt(biased variance + 1e-5) over the axes, in at least float32.

    With `where`, mean and variance are those of the elements where it is True.
    """
    x = at_least_float32(x)
    centered = x - jnp.mean(x, axes, keepdims=True, where=where)
    variance = jnp.mean(jnp.square(centered), axes, keepdims=True, where=where)
    return centered * jax.lax.rsqrt(variance + 1e-5)
