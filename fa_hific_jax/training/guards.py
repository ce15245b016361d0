"""Checks of a step: norms of its gradients, and rejection of a step that is not finite."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.training.state import TrainState
from fa_hific_jax.training.trainable import by_name

Metrics = dict[str, Float[Array, ""]]


def keep_if_finite(
    new: TrainState, old: TrainState, metrics: Metrics
) -> tuple[TrainState, Metrics]:
    """Returns `new` if all metrics are finite, else `old`; `step` advances either way.

    Metrics include the norms of all gradients. The state and the returned metrics also count the
    skipped steps, in total and in a row.
    """
    finite = jnp.all(jnp.isfinite(jnp.stack(list(metrics.values()))))
    state = jax.tree.map(lambda ours, theirs: jnp.where(finite, ours, theirs), new, old)
    total, in_row = old.skipped[0], old.skipped[1]
    bad = 1 - finite.astype(jnp.int32)
    skipped = jnp.stack([total + bad, (in_row + bad) * bad])
    counts = skipped.astype(jnp.float32)
    metrics = metrics | {"skipped": counts[0], "skipped_in_row": counts[1]}
    return state.replace(step=old.step + 1, skipped=skipped), metrics


def gradient_norms(grads: Any) -> Metrics:
    """Returns the norm of all gradients as "grad_norm", of each module's as "grad_norm/encoder"."""
    squares: Metrics = {}
    for name, leaf in by_name(grads).items():
        if leaf is not None:
            module, square = _module(name.split("/")), jnp.sum(jnp.square(leaf))
            squares[module] = squares[module] + square if module in squares else square
    norms = {f"grad_norm/{module}": jnp.sqrt(square) for module, square in squares.items()}
    return norms | {"grad_norm": jnp.sqrt(sum(squares.values()))}


def term_norms(squares: Metrics, count: int) -> Metrics:
    """Returns "grad_norm_term/NAME" from each term's squared norm, a mean over `count` parts."""
    return {f"grad_norm_term/{name}": jnp.sqrt(square / count) for name, square in squares.items()}


def _module(name: list[str]) -> str:
    if name[0] != "autoencoder":
        return name[0].removeprefix("dsl_")
    return "fcm" if name[2].startswith("fcm") else name[1]
