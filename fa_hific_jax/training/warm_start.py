"""Warm start: a new run that begins with the parameters of an earlier or imported one."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from flax.traverse_util import unflatten_dict

from fa_hific_jax.checkpoints import differences, is_there, newest, workdir_path
from fa_hific_jax.codec import model_folder, shipped
from fa_hific_jax.errors import UserError
from fa_hific_jax.settings import Settings
from fa_hific_jax.training.ema import restart_ema
from fa_hific_jax.training.state import TrainState
from fa_hific_jax.training.trainable import by_name

FREE = {
    *("model.encoder_widths", "model.generator_widths", "model.latent_channels"),
    *("model.hyper_channels", "model.residual_blocks", "model.fcm_width", "model.fcm_dropout"),
    *("model.hyper_rounding", "model.dtype", "model.qualities", "model.linear_path"),
    *("discriminator.widths", "discriminator.context_channels"),
}
"""Settings that may differ from those of the source. They show in the names and shapes of the
parameters, or do not change the meaning of the parameters."""

FCM = "autoencoder/generator/fcm"
"""Prefix of the names of the parameters of the FCMs in a checkpoint."""

SPECTRAL = "discriminator/spectral/"
TAKEN = (
    "autoencoder/",
    "training/dsl_sigma",
    "training/discriminator/params/",
    f"training/{SPECTRAL}",
)
"""Prefixes of the names in a checkpoint that a new run can take."""


class StoredParameters(NamedTuple):
    """Parameters of a checkpoint or of an exported model."""

    folder: epath.Path
    step: int
    settings: Mapping[str, Any]  # of the run that trained them
    stored: Mapping[str, Any]  # their shapes by name
    read: Callable[[Collection[str]], Mapping[str, np.ndarray]]  # the arrays with these names


def find(settings: Settings) -> StoredParameters:
    """Returns the parameters of the newest checkpoint, or of the model, in `settings.init_from`.

    Raises:
      UserError: there is none, or its parameters have another meaning than those of `settings`.
    """
    folder = workdir_path(shipped.place(settings.init_from), "config.init_from")
    is_model = is_there(folder / model_folder.DESCRIPTION)
    source = _of_model(folder) if is_model else _of_checkpoint(folder)
    stored = source.settings
    for key, was, is_now in differences(stored, settings, ["model", "discriminator"]):
        group, field = key.split(".")
        gan = min(stored["loss"]["gan"], settings.loss.gan)
        # FCMs of another kind are new (`_other_fcm`), as is all that the source did not have.
        new = field.startswith("fcm") or (group == "discriminator" and not gan)
        if key not in FREE and not new:
            raise UserError(
                f"config.init_from {folder} was trained with {key}={was}, the config says "
                f"{is_now}: its parameters do not fit, so set --config.{key}={was}"
            )
    if _other_fcm(stored["model"], settings):
        rest = {name: leaf for name, leaf in source.stored.items() if not name.startswith(FCM)}
        return source._replace(stored=rest)
    return source


def _other_fcm(stored: Mapping[str, Any], settings: Settings) -> bool:
    """Returns True if the FCMs have another kind or width than those of the source."""
    model = settings.model
    return (stored["fcm"], stored["fcm_width"]) != (model.fcm, model.fcm_width)


def _of_checkpoint(folder: epath.Path) -> StoredParameters:
    kept, step = newest(folder, "config.init_from")

    def read(names: Collection[str]) -> Mapping[str, np.ndarray]:
        wanted = unflatten_dict(dict.fromkeys(names, 0), sep="/")
        items = {item: kept.read(step, item, wanted[item]) for item in wanted}
        kept.close()
        return by_name(items)

    items = {item: kept.contents(step, item) for item in ("autoencoder", "training")}
    stored = {
        name: leaf
        for name, leaf in by_name(items).items()
        if name.startswith(TAKEN) and leaf is not None
    }
    return StoredParameters(folder, step, kept.settings(step), stored, read)


def _of_model(folder: epath.Path) -> StoredParameters:
    origin, leaves = model_folder.load_parameters(str(folder))
    stored = {f"autoencoder/{name}": leaf for name, leaf in leaves.items()}
    return StoredParameters(
        folder, origin["step"], origin["settings"], stored, lambda names: stored
    )


def take(state: TrainState, source: StoredParameters) -> tuple[TrainState, str]:
    """Returns (`state` with every parameter that `source` has, a one-line summary).

    A discriminator's parameters come with its spectral vectors. Whatever only `state` has stays as
    it is, including its step and optimizers. Arrays are read on the host and get the sharding of
    those in `state`.

    Raises:
      UserError: a parameter has different shapes in `state` and `source`.
    """
    ours, stored = by_name(_items(state)), source.stored
    common = [name for name in ours if name in stored]
    for name in common:
        here, there = tuple(ours[name].shape), tuple(stored[name].shape)
        if here != there:
            raise UserError(
                f"config.init_from {source.folder}: {_parameter(name)} has shape {there} there but "
                f"{here} in this config: use the sizes of that run"
            )
    values = source.read(common)
    taken = {
        name: jax.device_put(np.asarray(values[name], ours[name].dtype), ours[name].sharding)
        for name in common
    }
    summary = _summary(source, taken, ours, stored)
    return _replaced(state, unflatten_dict(ours | taken, sep="/")), summary


def _items(state: TrainState) -> dict[str, Any]:
    """Returns the part of `state` that a checkpoint can replace, in the layout of a checkpoint."""
    training = dict(state.params)
    autoencoder = training.pop("autoencoder")
    if state.discriminator is not None:
        training["discriminator"] = {
            "params": state.discriminator.params,
            "spectral": state.discriminator.spectral,
        }
    return {"autoencoder": autoencoder, "training": training}


def _replaced(state: TrainState, items: dict[str, Any]) -> TrainState:
    training = items.get("training", {})
    discriminator = state.discriminator
    if discriminator is not None:
        discriminator = discriminator.replace(**training.pop("discriminator"))
    params = training | {"autoencoder": items["autoencoder"]}
    return restart_ema(state.replace(params=params, discriminator=discriminator))


def _summary(
    source: StoredParameters, taken: dict[str, Any], ours: Collection[str], stored: Collection[str]
) -> str:
    names = {_parameter(name) for name in taken}
    here, there = (
        [_parameter(name) for name in side if SPECTRAL not in name] for side in (ours, stored)
    )
    count = sum(leaf.size for name, leaf in taken.items() if SPECTRAL not in name)
    text = f"warm start from {source.folder} step {source.step}: {count:,} parameters taken"
    if new := _groups([name for name in here if name not in names], here):
        text += f"; new: {', '.join(new)}"
    if unused := _groups([name for name in there if name not in names], there):
        text += f"; not used: {', '.join(unused)}"
    return text


def _parameter(name: str) -> str:
    """Returns the name that parameters.txt has for a name of a checkpoint."""
    return name.removeprefix("training/").replace("discriminator/params/", "discriminator/")


def _groups(chosen: Collection[str], names: Collection[str]) -> list[str]:
    """Returns the shortest prefixes that cover `chosen` and nothing else of `names`."""

    def prefixes(name: str) -> list[str]:
        return ["/".join(name.split("/")[: count + 1]) for count in range(name.count("/") + 1)]

    others = {prefix for name in names if name not in chosen for prefix in prefixes(name)}
    found = [next(part for part in prefixes(name) if part not in others) for name in chosen]
    return [name.removeprefix("autoencoder/") for name in dict.fromkeys(found)]
