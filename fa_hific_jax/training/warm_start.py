"""Warm start: a new run that begins with the parameters of an earlier or imported one."""

import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from flax.traverse_util import unflatten_dict

from fa_hific_jax.checkpoints import by_path, differences, is_there, newest, workdir_path
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

# Prefixes of names: of the FCMs, of the discriminator, and of all that a new run can take.
FCM = "autoencoder/generator/fcm"
JUDGE, SPECTRAL = "discriminator/params/", "discriminator/spectral/"
TAKEN = ("autoencoder/", "dsl_sigma", JUDGE, SPECTRAL)


class StoredParameters(NamedTuple):
    """Parameters of a checkpoint or of an exported model, on the host."""

    folder: epath.Path
    step: int
    arrays: Mapping[str, np.ndarray]  # by name, each of which begins as one of `TAKEN` says


def find(settings: Settings) -> StoredParameters:
    """Reads the parameters of the newest checkpoint, or of the model, in `settings.init_from`.

    FCMs of another kind or width than those of `settings` are left out. A UserError if there are no
    parameters, or they have another meaning than those of `settings`.
    """
    folder = workdir_path(shipped.place(settings.init_from), "config.init_from")
    if is_there(folder / model_folder.DESCRIPTION):
        origin, leaves = model_folder.load_parameters(str(folder))
        step, stored = origin["step"], origin["settings"]
        _check(folder, stored, settings)
        arrays = {f"autoencoder/{name}": leaf for name, leaf in leaves.items()}
    else:
        kept, step = newest(folder, "config.init_from")
        stored = kept.settings(step)
        _check(folder, stored, settings)
        arrays = {}
        for item, prefix in (("autoencoder", "autoencoder/"), ("training", "")):
            names = by_name(kept.contents(step, item))
            wanted = {name: 0 for name in names if f"{prefix}{name}".startswith(TAKEN)}
            read = kept.read(step, item, unflatten_dict(wanted, sep="/"))
            arrays |= {f"{prefix}{name}": leaf for name, leaf in by_name(read).items()}
        kept.close()
    was, model = stored["model"], settings.model
    if (was["fcm"], was["fcm_width"]) != (model.fcm, model.fcm_width):
        arrays = {name: leaf for name, leaf in arrays.items() if not name.startswith(FCM)}
    return StoredParameters(folder, step, arrays)


def _check(folder: epath.Path, stored: Mapping[str, Any], settings: Settings) -> None:
    """Raises a UserError if parameters trained with the settings `stored` mean something else."""
    for key, was, is_now in differences(stored, settings, ["model", "discriminator"]):
        group, field = key.split(".")
        gan = min(stored["loss"]["gan"], settings.loss.gan)
        # FCMs of another kind are new, as is all that the source did not have.
        new = field.startswith("fcm") or (group == "discriminator" and not gan)
        if key not in FREE and not new:
            raise UserError(
                f"config.init_from {folder} was trained with {key}={was}, the config says "
                f"{is_now}: its parameters do not fit, so set --config.{key}={was}"
            )


def take(state: TrainState, source: StoredParameters) -> tuple[TrainState, str]:
    """Returns (`state` with every parameter that `source` has, a one-line summary).

    A discriminator's parameters come with its spectral vectors. Whatever only `state` has stays as
    it is, including its step and optimizers. A parameter of another shape raises a UserError.
    """
    ours = {name.removeprefix("params/"): leaf for name, leaf in by_path(state).items()}
    taken = {}
    for name, leaf in ours.items():
        if name not in source.arrays:
            continue
        here, there = tuple(leaf.shape), tuple(source.arrays[name].shape)
        if here != there:
            raise UserError(
                f"config.init_from {source.folder}: {_shown(name)} has shape {there} there but "
                f"{here} in this config: use the sizes of that run"
            )
        array = np.asarray(source.arrays[name], leaf.dtype)
        taken[name] = jax.device_put(array, leaf.sharding)
    state = jax.tree.unflatten(jax.tree.structure(state), (ours | taken).values())
    return restart_ema(state), _summary(source, taken, ours)


def _summary(source: StoredParameters, taken: Mapping[str, Any], ours: Iterable[str]) -> str:
    names, here, there = (
        [_shown(name) for name in side if name.startswith(TAKEN) and SPECTRAL not in name]
        for side in (taken, ours, source.arrays)
    )
    count = sum(leaf.size for name, leaf in taken.items() if SPECTRAL not in name)
    text = f"warm start from {source.folder} step {source.step}: {count:,} parameters taken"
    for title, side in (("new", here), ("not used", there)):
        if groups := _groups(set(side) - set(names), side):
            text += f"; {title}: {', '.join(groups)}"
    return text


def _shown(name: str) -> str:
    """Returns the name that parameters.txt has for an array."""
    return name.replace(JUDGE, "discriminator/")


def _groups(chosen: Collection[str], names: Iterable[str]) -> list[str]:
    """Returns the shortest prefixes that cover `chosen` and nothing else of `names`."""

    prefixes = {name: list(itertools.accumulate(name.split("/"), "{}/{}".format)) for name in names}
    others = {part for name in names if name not in chosen for part in prefixes[name]}
    found = (next(p for p in prefixes[name] if p not in others) for name in names if name in chosen)
    return [name.removeprefix("autoencoder/") for name in dict.fromkeys(found)]
