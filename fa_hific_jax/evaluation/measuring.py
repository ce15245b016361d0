"""Measures pictures; features of each picture are computed once and kept in a file beside it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fa_hific_jax import metrics
from fa_hific_jax.evaluation import rows
from fa_hific_jax.evaluation.rows import Row
from fa_hific_jax.metrics.weights import Weights, digest


class Measuring:
    """The metrics of the pictures in a folder.

    `identity` is a hash that changes with the metrics and with their weights.
    """

    def __init__(self, weights: Weights, folder: Path):
        digests = {name: digest(params.weights) for name, params in weights.networks().items()}
        described = json.dumps([list(metrics.DESCRIPTIONS), digests], sort_keys=True)
        self.identity = hashlib.sha256(described.encode()).hexdigest()[:16]
        self._weights, self._folder = weights, folder
        self._needs_features = not digests.keys().isdisjoint(("alex", "inception"))

    def measured(self, row: Row, original: rows.Image) -> Row:
        """Returns a coded row with the metrics of its picture."""
        if row.measured_with == self.identity:
            return row
        decoded = rows.read_png(self._folder / row.file)
        values, missing = metrics.measure(original, decoded, self._weights)
        self.features(row.file)
        return dataclasses.replace(
            row, values=values, not_measured=missing, measured_with=self.identity
        )

    def features(self, picture: str) -> Mapping[str, np.ndarray]:
        """Returns the features of a picture by network; {} if no metric of sets is measured."""
        if not self._needs_features:
            return {}
        file = self._folder / f"features/{picture.replace('/', '.')}.npz"
        origin = f"{rows.key_of(self._folder / picture)} {self.identity}"
        found = rows.read_npz(file)
        if found.pop("identity", None) != origin:
            image = rows.read_png(self._folder / picture)
            found = dict(metrics.image_features(self._weights, image))
            rows.write_npz(file, identity=np.array(origin), **found)
        return found

    def sets(self, originals: Sequence[str], decoded: Sequence[str]) -> list[dict[str, Any]]:
        """Returns the entries of all metrics between two sets of pictures."""
        sets = (list(map(self.features, pictures)) for pictures in (originals, decoded))
        return metrics.set_metrics(self._weights, *sets)
