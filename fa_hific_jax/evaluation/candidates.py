"""The models to evaluate: where they lie, what they are called, at which points they code."""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from fa_hific_jax import checkpoints
from fa_hific_jax import settings as settings_lib
from fa_hific_jax.codec import shipped
from fa_hific_jax.codec.model import Model, from_params
from fa_hific_jax.codec.model_folder import DESCRIPTION, config_of, load_model
from fa_hific_jax.errors import UserError
from fa_hific_jax.models.autoencoder import init_parameters

QUALITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of models with a variable rate, unless others are asked for."""


class Point(NamedTuple):
    """How a model is asked to code; None where it has no such knob or shall take its default."""

    quality: float | None = None
    detail: float | None = None

    @property
    def name(self) -> str:
        """ "q=0.25,detail=1", "" for a model without knobs."""
        parts = (("q", self.quality), ("detail", self.detail))
        return ",".join(f"{name}={value:g}" for name, value in parts if value is not None)


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A model among the codecs of an evaluation.

    Attributes:
      id: names it in rows and files.
      kind: "model", or "control" for one that has not been trained.
      model: codes.
      params: all of the `Autoencoder`'s, for its own estimate of the rate; None where the model
        was exported, as they are not part of an export.
      step: of training; None where unknown.
      settings: of the run, as far as they are known; nested.
    """

    id: str
    kind: str
    model: Model
    params: Any
    step: int | None
    settings: Mapping[str, Any]

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of all weights and tables: `model_id` leaves the encoder out."""
        found = hashlib.sha256(self.model.model_id)
        for leaf in jax.tree.leaves(self.model.params):
            found.update(np.asarray(leaf).tobytes())
        return found.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Its entry in "codecs" of the results."""
        size = sum(leaf.size for leaf in jax.tree.leaves(self.params or self.model.params))
        return {
            "label": self.id,
            "kind": self.kind,
            "version": f"model {self.model.model_id.hex()}",
            "settings": dataclasses.asdict(self.model.config),
            "model_id": self.model.model_id.hex(),
            "step": self.step,
            "parameters": size,
            "target_bpp": self.settings.get("loss", {}).get("target_bpp"),
            "not_measured": None,
        }


def load(
    folder: str, given: settings_lib.Settings | None = None, called: str = "--models"
) -> Candidate:
    """The model of a training run's newest checkpoint, or of an exported folder.

    Args:
      folder: of a run, which holds its own config, or written by `fa-hific export`.
      given: the config as the user gave it, to be held against the run's.
      called: how the user named the folder.

    Raises:
      UserError: neither of the two, damaged, or the run was made with another model than `given`.
    """
    path = checkpoints.workdir_path(shipped.place(folder), called)
    name = path.name or "model"
    if (path / DESCRIPTION).exists():
        model = load_model(Path(path))
        known = model.origin.get("settings") or {}
        return Candidate(name, "model", model, None, model.origin.get("step"), known)
    if called != "--workdir" and not (path / checkpoints.FOLDER).exists():
        raise UserError(
            f"{called} {folder}: neither a run (it holds no {checkpoints.FOLDER} folder) nor an "
            f"exported model (it holds no {DESCRIPTION}): give one of the two"
        )
    if given is not None:
        params, step = checkpoints.load_autoencoder(path, given)
        known, config = settings_lib.to_mapping(given), given.model
    else:
        params, step, known, config = _read_run(path, called)
    return Candidate(name, "model", from_params(config, params), params, step, known)


def _read_run(path: epath.Path, called: str) -> tuple[Any, int, dict[str, Any], Any]:
    """Parameters, step, settings and model's config of the newest checkpoint of a run."""
    kept, step = checkpoints.newest(path, called)
    stored = kept.settings(step)
    try:
        config = config_of(stored["model"])
    except TypeError as error:
        raise UserError(
            f"the checkpoint in {path} is of a version with other networks ({error}): "
            "evaluate it with the version that wrote it"
        ) from error
    params = checkpoints.restore_on_device(kept, step, config)
    kept.close()
    return params, step, stored, config


def untrained(of: Candidate) -> Candidate:
    """The same networks with random parameters, those with which the run began."""
    seed = of.settings.get("train", {}).get("seed", 0)
    params = init_parameters(of.model.config, jax.random.key(seed))
    model = from_params(of.model.config, params)
    return Candidate("untrained", "control", model, params, 0, of.settings)


def with_distinct_ids(found: Sequence[Candidate], taken: Sequence[str] = ()) -> list[Candidate]:
    """The candidates, with -2, -3, ... behind an id that an earlier one or `taken` has."""
    used, distinct = set(taken), []
    for candidate in found:
        names = itertools.chain(
            [candidate.id], (f"{candidate.id}-{number}" for number in itertools.count(2))
        )
        name = next(name for name in names if name not in used)
        used.add(name)
        distinct.append(dataclasses.replace(candidate, id=name))
    return distinct


def points(model: Model, qualities: Sequence[float], details: Sequence[float]) -> list[Point]:
    """Every combination of what is asked for and the model can do; by default at full detail."""
    rates = (qualities or QUALITIES) if model.config.qualities else (None,)
    shares = details if details and model.config.fcm_width else (None,)
    return [Point(quality, detail) for quality in rates for detail in shares]
