"""Weights of the networks that some metrics use."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Array, Float

from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.lpips import LpipsParams, load_lpips
from fa_hific_jax.metrics.inception import InceptionParams, load_inception

Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Weights:
    """The available weights; a metric whose weights are missing is reported as not measured."""

    lpips: Mapping[str, LpipsParams] = dataclasses.field(default_factory=dict)  # by network
    inception: InceptionParams | None = None

    def networks(self) -> dict[str, LpipsParams | InceptionParams]:
        """Returns the weights by "inception" or the id of the LPIPS network."""
        return {**self.lpips, **({"inception": self.inception} if self.inception else {})}


def load_weights(lpips: Sequence[Path] = (), inception: Path | None = None) -> Weights:
    """Returns weights from .npz files at local or cloud paths.

    `lpips` are names or files for `load_lpips`, at most one per network; AlexNet's weights serve
    FD-Alex and KID-Alex too. `inception` is a file of `fa-hific get-inception`, for FID and KID.
    Raises a UserError for a file that is missing or wrong.
    """
    found: dict[str, LpipsParams] = {}
    for path in lpips:
        params = load_lpips(path)
        if found.setdefault(params.net, params) is not params:
            raise UserError(
                f"{path}: a second file of LPIPS weights for {params.title}: give only one"
            )
    return Weights(found, None if inception is None else load_inception(inception))


def digest(arrays: Mapping[str, Float[Array, "..."]]) -> str:
    """Returns 12 hexadecimal digits of the SHA-256 over names, shapes and float32 contents."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], "<f4")
        found.update(f"{name} {array.shape}\n".encode() + array.tobytes())
    return found.hexdigest()[:12]
