"""Measures pictures; features of each picture are computed once and kept in a file beside it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fa_hific_jax import metrics
from fa_hific_jax.evaluation import files
from fa_hific_jax.evaluation.rows import Row
from fa_hific_jax.metrics import Weights
from fa_hific_jax.metrics.weights import digest


class Measuring:
    """The metrics of the pictures in a folder.

    A file in features/ names the picture's key and the weights, so that no other features are
    taken. `identity` is a hash that changes with the metrics and with their weights.
    """

    def __init__(self, weights: Weights, folder: Path):
        inception = {} if weights.inception is None else {"inception": weights.inception}
        networks: dict[str, Any] = {**weights.lpips, **inception}
        digests = {name: digest(params.weights) for name, params in networks.items()}
        described = json.dumps([list(metrics.DESCRIPTIONS), digests], sort_keys=True)
        self.identity = hashlib.sha256(described.encode()).hexdigest()[:16]
        self._weights, self._folder = weights, folder
        self._needed = not networks.keys().isdisjoint(("alex", "inception"))

    def measured(self, row: Row, original: files.Image) -> Row:
        """Returns a coded row with the metrics of its picture."""
        if row.measured_with == self.identity:
            return row
        decoded = files.read_png(self._folder / row.file)
        values, missing = metrics.measure(original, decoded, self._weights)
        self.features(row.file)
        return dataclasses.replace(
            row, values=values, not_measured=missing, measured_with=self.identity
        )

    def features(self, picture: str) -> Mapping[str, np.ndarray]:
        """Returns the features of a picture by network; {} if no metric of sets is measured."""
        if not self._needed:
            return {}
        file = self._folder / f"features/{picture.replace('/', '.')}.npz"
        identity = f"{files.key_of(self._folder / picture)} {self.identity}"
        found = files.read_npz(file)
        if found.pop("identity", None) != identity:
            image = files.read_png(self._folder / picture)
            found = dict(metrics.image_features(self._weights, image))
            files.write_npz(file, identity=np.array(identity), **found)
        return found

    def sets(self, originals: Sequence[str], decoded: Sequence[str]) -> list[dict[str, Any]]:
        """Returns the entries of all metrics between two sets of pictures."""
        pictures = (originals, decoded) if self._needed else ((), ())
        sets = ([self.features(picture) for picture in of] for of in pictures)
        return metrics.set_metrics(self._weights, *sets)
