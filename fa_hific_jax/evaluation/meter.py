"""All metrics with the weights that are there, under one key."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fa_hific_jax import metrics
from fa_hific_jax.evaluation.results import replace_file
from fa_hific_jax.metrics.weights import digest

Image = UInt8[np.ndarray, "_ _ 3"]
Features = Mapping[str, np.ndarray]


class Meter:
    """Measures pairs of images and sets of them.

    Args:
      lpips_files, inception_file: as `metrics.load_weights`; "" for none.

    Attributes:
      key: changes with the metrics and with their weights.

    Raises:
      UserError: a file of weights is missing or another one than meant.
    """

    def __init__(self, lpips_files: Sequence[str] = (), inception_file: str = ""):
        self._weights = metrics.load_weights(lpips_files, inception_file or None)
        networks: dict[str, Any] = dict(self._weights.lpips)
        if self._weights.inception is not None:
            networks["inception"] = self._weights.inception
        self._of_sets = bool({"alex", "inception"} & networks.keys())
        digests = {name: digest(params.weights) for name, params in networks.items()}
        identity = json.dumps([list(metrics.DESCRIPTIONS), digests], sort_keys=True)
        self.key = hashlib.sha256(identity.encode()).hexdigest()[:16]

    def pair(self, x: Image, x_hat: Image) -> tuple[dict[str, float | None], dict[str, str]]:
        """Value of each metric, None where there is none, and then why."""
        values, not_measured = metrics.measure(x, x_hat, self._weights)
        return values, not_measured

    def keep_features(self, image: Image, file: Path) -> None:
        """Writes what `sets` needs to know of an image, if it needs anything."""
        if self._of_sets:
            content = io.BytesIO()
            features: dict[str, Any] = dict(metrics.image_features(self._weights, image))
            np.savez(content, **features)
            replace_file(file, content.getvalue())

    def has_features(self, file: Path) -> bool:
        """Whether all that `sets` needs to know of an image is there."""
        return not self._of_sets or file.is_file()

    def sets(self, originals: Sequence[Path], decoded: Sequence[Path]) -> list[dict[str, Any]]:
        """Entries of metrics between two sets of images, of which features were kept."""
        if not self._of_sets:
            return metrics.set_metrics(self._weights, (), ())
        pair = ([_read(file) for file in files] for files in (originals, decoded))
        return metrics.set_metrics(self._weights, *pair)


def _read(file: Path) -> Features:
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)
