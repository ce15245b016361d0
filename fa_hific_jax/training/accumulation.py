"""Gradient accumulation: a batch computed in parts, one after the other, to save memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def split(batch: Any, count: int) -> Any:
    """Returns `batch` with a leading axis of `count` parts; part i holds images i, i + count, ...

    The images of one device are neighbors in the batch, so every part spreads over all devices.
    """
    return jax.tree.map(
        lambda leaf: jnp.swapaxes(leaf.reshape(-1, count, *leaf.shape[1:]), 0, 1), batch
    )


def join(parts: Any) -> Any:
    """Returns the batch that `split` took apart."""
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:]), parts)


def run_ahead(
    function: Callable[[Any], Any], select: Callable[[Any], Any], batch: Any, count: int
) -> tuple[Any, Callable[[Any], Any]]:
    """Returns `select(function(batch))`, which must be per image, and `function` for a second run.

    With one part the second run returns the result of the first. With several, each part is
    computed again, since keeping all results would need the memory that parts save.
    """
    if count == 1:
        result = function(batch)
        return select(result), lambda _: result
    selected = jax.lax.map(lambda part: select(function(part)), split(batch, count))
    return join(selected), function


def mean_over_parts(function: Callable[[Any], Any], batch: Any, count: int) -> Any:
    """Returns the mean of `function` over `count` parts of `batch`; `function(batch)` for one."""
    if count == 1:
        return function(batch)
    parts = split(batch, count)
    shapes = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], parts))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(total, part):
        return jax.tree.map(jnp.add, total, function(part)), None

    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda leaf: leaf / count, total)
