"""Features of pictures, kept in files: what metrics between two sets of images need."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fa_hific_jax import metrics
from fa_hific_jax.evaluation.images import Image
from fa_hific_jax.evaluation.results import replace_file
from fa_hific_jax.metrics import Weights
from fa_hific_jax.metrics.weights import digest


def measured_with(weights: Weights) -> str:
    """Returns a hash that changes with the metrics and with their weights."""
    networks: dict[str, Any] = dict(weights.lpips)
    if weights.inception is not None:
        networks["inception"] = weights.inception
    digests = {name: digest(params.weights) for name, params in networks.items()}
    identity = json.dumps([list(metrics.DESCRIPTIONS), digests], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def keep(weights: Weights, image: Image, out: Path, picture: str) -> None:
    """Writes the features of a picture in `out` that `set_metrics` needs, if it needs any."""
    if _needed(weights):
        content = io.BytesIO()
        features: dict[str, Any] = dict(metrics.image_features(weights, image))
        np.savez(content, **features)
        replace_file(_file(out, picture), content.getvalue())


def are_kept(weights: Weights, out: Path, picture: str) -> bool:
    """Returns True unless features of this picture are needed and not there."""
    return not _needed(weights) or _file(out, picture).is_file()


def remove(out: Path, picture: str) -> None:
    """Removes the features of a picture that is about to change."""
    _file(out, picture).unlink(missing_ok=True)


def set_metrics(
    weights: Weights, out: Path, originals: Sequence[str], decoded: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns the entries of all metrics between two sets of pictures, whose features are kept."""
    if not _needed(weights):
        return metrics.set_metrics(weights, (), ())
    return metrics.set_metrics(
        weights, *([_read(_file(out, name)) for name in names] for names in (originals, decoded))
    )


def _needed(weights: Weights) -> bool:
    return "alex" in weights.lpips or weights.inception is not None


def _file(out: Path, picture: str) -> Path:
    return out / f"features/{picture.replace('/', '.')}.npz"


def _read(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)
