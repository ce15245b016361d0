"""Writes models as folders, and reads them. `fa-hific export` writes a folder with these files:

model.json           format version, id, shape of the networks, origin of the model
weights.safetensors  encoder, hyper-analysis and generator
tables.safetensors   what encoder and decoder must share: coding tables, integer hyper-synthesis
training.safetensors float hyper-synthesis and prior, only if the model can be trained further;
                     coding uses their integer versions in the tables instead, from which a model of
                     float16 or int8 takes the kernels of the hyper-synthesis for training too
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float32

from fa_hific_jax.codec import safetensors_file, shipped
from fa_hific_jax.codec.arrays import entropy_arrays, entropy_from_arrays, flat, nested
from fa_hific_jax.codec.float_model import swapped_kernels
from fa_hific_jax.codec.model import Model
from fa_hific_jax.codec.weights import KINDS, restored, stored
from fa_hific_jax.errors import UserError, shown
from fa_hific_jax.settings.model import ModelConfig, config_of
from fa_hific_jax.writing import write_folder

FORMAT = 1
DESCRIPTION = "model.json"
_FIELDS = {"format": int, "id": str, "weights": str}
_FIELDS |= dict.fromkeys(("sha256", "model", "origin"), dict)
_WEIGHTS, _TABLES, _TRAINING = (f"{n}.safetensors" for n in ("weights", "tables", "training"))


def save_model(
    model: Model,
    folder: Path | str,
    *,
    replace: bool = False,
    to_train_on: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the model as a folder, whole or not at all, and returns its path.

    `to_train_on` has all parameters of the model's `Autoencoder`; those that the model does not
    hold are then stored as well, for `load_parameters`.

    Raises:
      UserError: the path exists and is no empty folder, and `replace` is False or there is no model
        at it.
    """
    folder = Path(folder).expanduser()
    check_target(folder, replace=replace)
    weights = flat(model.params)
    parts = {_WEIGHTS: stored(weights, model.weights), _TABLES: entropy_arrays(model.entropy)}
    if to_train_on is not None:
        params = dict(jax.device_get(to_train_on))
        if model.weights != "float32":  # It has more digits than the tables, the others have fewer.
            params["hyperprior"] = swapped_kernels(params["hyperprior"], model.entropy.synthesis)
        missing = {name: leaf for name, leaf in flat(params).items() if name not in weights}
        parts[_TRAINING] = stored(missing, model.weights)
    files = {name: safetensors_file.to_bytes(arrays) for name, arrays in parts.items()}
    description = {
        "format": FORMAT,
        "id": model.model_id.hex(),
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "parameters": sum(array.size for array in weights.values()),
        "weights": model.weights,
        "model": dataclasses.asdict(model.config),
        "origin": dict(model.origin),
    }
    files[DESCRIPTION] = (json.dumps(description, indent=2) + "\n").encode()
    write_folder(folder, files, replace=replace)
    return folder


def check_target(folder: Path, *, replace: bool) -> None:
    """Raises a UserError if `save_model` would refuse to write the folder."""
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not replace:
        why = "exists already: choose another name, or replace it with --force"
        raise UserError(f"{folder}: {why}")
    if not (folder / DESCRIPTION).is_file():
        raise UserError(f"{folder}: is not a model, so it is not replaced: choose another name")


def load_model(path: Path | str = shipped.DEFAULT) -> Model:
    """Loads a model from a folder of `fa-hific export`, or by its name.

    Names are those of models of the package, as the default is, and of published ones that
    `fa-hific get-model` has fetched.

    Raises:
      UserError: there is no such folder, a file is missing or damaged, the format has another
        version, or the content does not match the model's id.
    """
    folder, description = _open(path)
    weights, tables = (_read_arrays(folder, name, description) for name in (_WEIGHTS, _TABLES))
    config = _read_config(folder / DESCRIPTION, description["model"], weights)
    with _reading(folder):
        params = {name: _private(array) for name, array in restored(weights).items()}
        model = Model(
            config=config,
            params=jax.device_put(nested(params)),
            entropy=entropy_from_arrays({name: np.array(each) for name, each in tables.items()}),
            weights=description["weights"],
            origin=description["origin"],
        )
    if model.model_id.hex() != description["id"]:
        content = f"the content is that of model {model.model_id.hex()}"
        stated = f"{DESCRIPTION} says {description['id']!r:.40}"
        raise UserError(f"{folder}: {content}, {stated}: copy or export the model again")
    return model


def load_parameters(path: Path | str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns origin and all parameters, float32 by flat names, of a model to train further.

    Raises a UserError like `load_model`, or if the model lacks what only training needs.
    """
    folder, description = _open(path)
    if _TRAINING not in description["sha256"]:
        raise UserError(
            f"{folder}: was exported without the parameters that only training needs: use the "
            "folder of the training run, or export the model again with --trainable"
        )
    names = (_WEIGHTS, _TABLES, _TRAINING)
    weights, tables, training = (_read_arrays(folder, name, description) for name in names)
    params = nested(restored(weights | training))
    if any(name.endswith("/exponent") for name in training):
        synthesis = entropy_from_arrays(tables).synthesis
        params["hyperprior"] = swapped_kernels(params["hyperprior"], synthesis)
    leaves: dict[str, Any] = flatten_dict(params, sep="/")
    return description["origin"], {n: np.array(v, np.float32) for n, v in leaves.items()}


def _open(path: Path | str) -> tuple[Path, dict[str, Any]]:
    """Returns folder and description of the model with this path or name."""
    folder = Path(shipped.place(path)).expanduser()
    if not folder.is_dir():
        named = f"nor a model with a name ({', '.join(shipped.known())})"
        why = f"no such folder, {named}: give one that fa-hific export has written"
        raise UserError(f"{path}: {why}")
    file = folder / DESCRIPTION
    with _reading(file, "it is not JSON"):
        description = json.loads(file.read_bytes())
    stated = description if isinstance(description, dict) else {}
    if isinstance(stated.get("format"), int) and stated["format"] != FORMAT:
        raise UserError(
            f"{folder}: has model format {stated['format']}, this build reads {FORMAT}: "
            "install the release of fa-hific-jax that wrote it, or export the model again"
        )
    for key, kind in _FIELDS.items():
        if not isinstance(stated.get(key), kind):
            raise _damaged(file, f"{key!r} is missing")
    if description["weights"] not in KINDS:
        raise _damaged(file, f"it states weights of {description['weights']!r:.40}")
    return folder, description


def _read_config(path: Path, stored: Any, weights: Mapping[str, np.ndarray]) -> ModelConfig:
    """Returns the config that the description at `path` has stored for these weights."""
    try:
        config = config_of(stored)
    except (TypeError, UserError) as error:
        why = f"describes networks that this build does not know ({shown(str(error)[:200])})"
        raise UserError(
            f"{path}: {why}: install the release of fa-hific-jax that wrote it"
        ) from error
    if config.linear_path == "alone":
        return config
    # The model's id omits the encoder.
    names = [f"encoder/conv{level}/Conv_0/bias" for level in range(len(config.encoder_widths))]
    widths = tuple(weights[name].size if name in weights else 0 for name in names)
    if widths != config.encoder_widths:
        stated = f"it states encoder widths {config.encoder_widths}"
        raise _damaged(path, f"{stated}, but the weights have {widths}")
    return config


def _read_arrays(folder: Path, name: str, description: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the arrays of a file as views of it, which change if it is overwritten in place."""
    path = folder / name
    with _reading(path, "it is not a safetensors file"):
        data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
        if hashlib.sha256(data.data).hexdigest() != description["sha256"].get(name):
            raise _damaged(path, f"its SHA-256 is not the one in {DESCRIPTION}")
        return safetensors_file.views(data)


def _private(array: np.ndarray) -> Float32[np.ndarray, "..."]:
    """Returns a float32 copy, at an address where JAX on the CPU needs no second one."""
    room = np.empty(array.size + 16, np.float32)
    start = -room.ctypes.data % 64 // 4
    copy = room[start : start + array.size].reshape(array.shape)
    copy[...] = array
    return copy


@contextlib.contextmanager
def _reading(path: Path, wrong: str = "") -> Iterator[None]:
    """Turns errors while a file of the model, or its content, is read into UserErrors."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        why = "no such file, so the model is incomplete: copy or export it again"
        raise UserError(f"{path}: {why}") from error
    except OSError as error:
        why = f"cannot be read ({error.strerror}): fix that, or copy the model again"
        raise UserError(f"{path}: {why}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"{wrong} ({error})"[:200]) from error
    except KeyError as error:
        raise _damaged(path, f"{error} is missing") from error


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path}: is damaged, {why}: copy or export the model again")
