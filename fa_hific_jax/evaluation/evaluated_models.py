"""The models to evaluate: loads them from runs and exported folders, and describes them."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fa_hific_jax import checkpoints
from fa_hific_jax.codec import shipped
from fa_hific_jax.codec.model import Model, from_params
from fa_hific_jax.codec.model_folder import DESCRIPTION, load_model
from fa_hific_jax.errors import UserError
from fa_hific_jax.models.autoencoder import init_parameters
from fa_hific_jax.settings import Settings


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """A model among the codecs of an evaluation."""

    id: str  # name in rows and files
    kind: str  # "model", or "control" for one that has not been trained
    model: Model
    params: Any  # of the `Autoencoder`; None for an exported model, which lacks some of them
    step: int | None  # training step, where known
    settings: Mapping[str, Any]  # settings of the run, nested, as far as they are known

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of all weights and tables; `model_id` alone does not cover the encoder."""
        found = hashlib.sha256(self.model.model_id)
        for leaf in jax.tree.leaves(self.model.params):
            found.update(np.asarray(leaf).tobytes())
        return found.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Returns the model's entry in "codecs" of the results."""
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


def load(folder: str, named_by: str, held: Settings | None = None) -> EvaluatedModel:
    """Loads the newest checkpoint of a training run, or an exported model.

    `folder` may also be the name of a model; `named_by` is the flag that names it, for messages.
    The run must agree with the settings `held`; by default its own are taken. Raises a UserError
    if the folder is neither of the two or damaged, or the run has another model than `held`.
    """
    path = checkpoints.workdir_path(shipped.place(folder), named_by)
    name = path.name or "model"
    if checkpoints.is_there(path / DESCRIPTION):
        model = load_model(Path(path))
        known = model.origin.get("settings") or {}
        return EvaluatedModel(name, "model", model, None, model.origin.get("step"), known)
    if named_by != "--workdir" and not checkpoints.is_there(path / checkpoints.FOLDER):
        raise UserError(
            f"{named_by} {folder}: neither a run (it holds no {checkpoints.FOLDER} folder) nor an "
            f"exported model (it holds no {DESCRIPTION}): give one of the two, or the name of a "
            f"model ({', '.join(shipped.known())})"
        )
    params, step, known, config = checkpoints.load_autoencoder(path, held, named_by)
    return EvaluatedModel(name, "model", from_params(config, params), params, step, known)


def untrained(of: EvaluatedModel) -> EvaluatedModel:
    """Returns the same networks with random parameters, drawn with the seed of the run."""
    seed = of.settings.get("train", {}).get("seed", 0)
    params = jax.jit(init_parameters, static_argnums=0)(of.model.config, jax.random.key(seed))
    model = from_params(of.model.config, params)
    return EvaluatedModel("untrained", "control", model, params, 0, of.settings)
