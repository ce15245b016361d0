"""Features of pictures, kept in files beside them, for the metrics between sets of images."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fa_hific_jax import metrics
from fa_hific_jax.evaluation import files
from fa_hific_jax.metrics import Weights
from fa_hific_jax.metrics.weights import digest


class Features:
    """Features of the pictures in a folder, each computed once and kept in features/.

    A file of features names the picture's key and the weights, so that no other features are taken.
    `measured_with` is a hash that changes with the metrics and with their weights.
    """

    def __init__(self, weights: Weights, folder: Path):
        networks: dict[str, Any] = dict(weights.lpips)
        if weights.inception is not None:
            networks["inception"] = weights.inception
        digests = {name: digest(params.weights) for name, params in networks.items()}
        identity = json.dumps([list(metrics.DESCRIPTIONS), digests], sort_keys=True)
        self.measured_with = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self._weights, self._folder = weights, folder
        self._needed = not networks.keys().isdisjoint(("alex", "inception"))

    def of(self, picture: str) -> dict[str, np.ndarray]:
        """Returns the features of a picture by network; {} if no metric of sets is measured."""
        if not self._needed:
            return {}
        file = self._folder / f"features/{picture.replace('/', '.')}.npz"
        identity = f"{files.key_of(self._folder / picture)} {self.measured_with}"
        found = files.read_npz(file)
        if found.pop("identity", None) != identity:
            image = files.read_png(self._folder / picture)
            found = dict(metrics.image_features(self._weights, image))
            files.write_npz(file, identity=np.array(identity), **found)
        return found

    def set_metrics(self, originals: Sequence[str], decoded: Sequence[str]) -> list[dict[str, Any]]:
        """Returns the entries of all metrics between two sets of pictures."""
        sets = [[self.of(picture) for picture in pictures] for pictures in (originals, decoded)]
        return metrics.set_metrics(self._weights, *(sets if self._needed else ((), ())))
