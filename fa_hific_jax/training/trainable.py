"""Selection of the parameters that train, by parts of their names."""

import difflib
from collections.abc import Sequence
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from fa_hific_jax.errors import UserError


def by_name(tree: Any) -> dict[str, Any]:
    """Returns the leaves of nested dicts by names such as "autoencoder/encoder/conv0/kernel"."""
    flat: Any = flatten_dict(tree, sep="/")
    return flat


def partition(params: Any, patterns: Sequence[str], prefix: str = "") -> tuple[Any, Any]:
    """Returns (trained, frozen): two copies of `params` in which None replaces the other's leaves.

    A parameter trains if its name, with `prefix` in front, contains one of `patterns`. Without
    patterns every parameter trains.
    """

    trained, frozen = {}, {}
    for name, leaf in by_name(params).items():
        trains = not patterns or any(pattern in prefix + name for pattern in patterns)
        trained[name], frozen[name] = (leaf, None) if trains else (None, leaf)
    return unflatten_dict(trained, sep="/"), unflatten_dict(frozen, sep="/")


def combine(trained: Any, frozen: Any) -> Any:
    """Returns the whole tree from the two that `partition` made."""
    return jax.tree.map(
        lambda ours, theirs: theirs if ours is None else ours,
        trained,
        frozen,
        is_leaf=lambda leaf: leaf is None,
    )


def check(params: Any, patterns: Sequence[str]) -> None:
    """Raises a UserError for the first of `patterns` that no parameter's name contains."""
    known = list(by_name(params))
    for pattern in patterns:
        if not any(pattern in name for name in known):
            parts = dict.fromkeys(part for name in known for part in name.split("/"))
            close = difflib.get_close_matches(pattern, parts, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
            raise UserError(
                f"config.trainable contains {pattern!r}, but no parameter's name contains it: "
                f"{hint}parameters.txt of a run lists all names"
            )
