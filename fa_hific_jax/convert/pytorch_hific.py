"""Checkpoints of the PyTorch HiFiC and of the FA-HiFiC authors' fork, as our parameters."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fa_hific_jax.convert.inert_pickle import Record
from fa_hific_jax.convert.pytorch_layout import (
    LEGACY_SIGMAS,
    Source,
    autoencoder_sources,
    discriminator_sources,
)
from fa_hific_jax.convert.pytorch_options import (
    Options,
    check_kind,
    described,
    discriminator_config,
    model_config,
    shown,
)
from fa_hific_jax.convert.torch_file import read_torch_file
from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.dynamic_spectrum import raw_from_sigma
from fa_hific_jax.models.autoencoder import ModelConfig
from fa_hific_jax.models.discriminator import DiscriminatorConfig

STATE = "model_state_dict"
REGIMES = ("low", "med", "high")
# Entries of the file beside the parameters, and why they are left out.
_OTHER_ENTRIES = {
    "compression_optimizer_state_dict": "an optimizer's state, training begins with a fresh one",
    "hyperprior_optimizer_state_dict": "an optimizer's state, training begins with a fresh one",
    "discriminator_optimizer_state_dict": "an optimizer's state, training begins with a fresh one",
    "discriminator_state_dict": f"the discriminator again, which {STATE} holds",
    "epoch": "steps say more",
}
# Parameters saved in evaluation mode that say nothing of their own.
_OTHER_KEYS = (
    (
        r"Hyperprior\.hyperprior_entropy_model\.distribution\.[Hab]_\d",
        "a second copy of Hyperprior.hyperlatent_likelihood",
    ),
    (
        r"Hyperprior\.(hyperprior|prior)_entropy_model\.CDF(_offset|_length)?",
        "coding tables, which an export makes anew",
    ),
    (
        r"Hyperprior\.prior_entropy_model\.(scale_table|min_scale)_tensor",
        "constants of the coding tables",
    ),
)


class Imported(NamedTuple):
    """A converted checkpoint.

    `autoencoder` and `training` are as `Checkpoints.save` takes them: `training` holds
    "discriminator" ("params" and "spectral") and "dsl_sigma" (raw, see `sigma_from_raw`) where the
    file has them. `ignored` are (name, reason) of what was left out; `regime` is "low", "med",
    "high" or None; `assumed` names the options that neither file nor user told.
    """

    model: ModelConfig
    discriminator: DiscriminatorConfig
    autoencoder: dict[str, Any]
    training: dict[str, Any]
    step: int
    regime: str | None
    ignored: list[tuple[str, str]]
    assumed: list[str]


def import_checkpoint(path: str | Path, options: Options) -> Imported:
    """The model in a file that the PyTorch HiFiC saved, float32.

    `options` win over what the file says of itself. The file may also be the bare state dict.

    Raises:
      UserError: the file cannot be read (see `read_torch_file`), it is no such checkpoint, a
        parameter is missing, unknown, of another shape or not finite, or the model is of a kind
        that does not exist here.
    """
    content = read_torch_file(path)
    try:
        return _import(content, options)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _import(content: Any, options: Options) -> Imported:
    state, args, step, others = _parts(content)
    check_kind(args)
    model, assumed = model_config(state, args, options)
    keys, tables = _set_apart(state)
    sources: dict[str, Any] = {"autoencoder": autoencoder_sources(model)}
    config = discriminator_config(state)
    if any(key.startswith("Discriminator.") for key in keys):
        sources["discriminator"] = discriminator_sources(config, model)
    sigmas = LEGACY_SIGMAS if any(key.endswith(".sigma") for key in keys) else ()
    leaves = jax.tree.leaves(sources, is_leaf=_is_source)
    _check_names(keys, {leaf.key for leaf in leaves} | {key for row in sigmas for key in row})
    trees = jax.tree.map(lambda source: _array(keys, source), sources, is_leaf=_is_source)
    training = {name: tree for name, tree in trees.items() if name == "discriminator"}
    if sigmas:
        training["dsl_sigma"] = _raw_sigmas(keys)
    regime = args.get("regime")
    return Imported(
        model=model,
        discriminator=config,
        autoencoder=trees["autoencoder"],
        training=training,
        step=step,
        regime=regime if isinstance(regime, str) and regime in REGIMES else None,
        ignored=others + tables,
        assumed=assumed,
    )


def _parts(content: Any) -> tuple[dict[str, Any], dict[str, Any], int, list[tuple[str, str]]]:
    """(state dict, arguments of its training, steps, entries left out) of a checkpoint."""
    if not isinstance(content, dict) or not (STATE in content or _is_state(content)):
        raise UserError(
            f"no checkpoint of the PyTorch HiFiC: it has neither {STATE} nor parameters of an "
            "Encoder, a Generator and a Hyperprior"
        )
    if STATE not in content:
        return content, {}, 0, []
    state, args, step = content[STATE], content.get("args", {}), content.get("steps", 0)
    args = args.state if isinstance(args, Record) else args
    if not (isinstance(args, dict) and isinstance(state, dict) and all(map(_is_name, state))):
        raise UserError(f"{STATE} or args is no mapping: it was not saved by the PyTorch HiFiC")
    rest = [key for key in content if _is_name(key) and key not in (STATE, "args", "steps")]
    others = [(shown(key), _OTHER_ENTRIES.get(key, "no part of the model")) for key in rest]
    return state, args, step if type(step) is int and 0 <= step < 10**12 else 0, others


def _is_state(content: Mapping[Any, Any]) -> bool:
    return all(map(_is_name, content)) and any(key.startswith("Encoder.") for key in content)


def _is_name(key: Any) -> bool:
    return isinstance(key, str)


def _set_apart(state: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """(what is to be converted, (name, reason) of what says nothing of its own)."""
    keys, ignored = {}, []
    for key, value in state.items():
        reason = next((why for what, why in _OTHER_KEYS if re.fullmatch(what, key)), None)
        if reason is None:
            keys[key] = value
        else:
            ignored.append((shown(key), reason))
    return keys, ignored


def _check_names(found: Iterable[str], wanted: set[str]) -> None:
    missing, unknown = wanted.difference(found), set(found) - wanted
    if missing:
        raise UserError(f"parameters are missing: {_listed(missing)}")
    if unknown:
        raise UserError(f"parameters are unknown: {_listed(unknown)}")


def _listed(names: Iterable[str]) -> str:
    listed = [shown(name) for name in sorted(names)]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _is_source(node: Any) -> bool:
    return isinstance(node, Source)


def _array(state: Mapping[str, Any], source: Source) -> np.ndarray:
    value = _floats(state, source.key, source.shape)
    return np.ascontiguousarray(source.layout.ours(value), np.float32)


def _floats(state: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> np.ndarray:
    value = state[key]
    if not isinstance(value, np.ndarray) or value.shape != shape:
        raise UserError(f"{key} has {described(value)} instead of the shape {shape}")
    if value.dtype.kind != "f":
        raise UserError(f"{key} holds no floating-point numbers")
    if not np.all(np.isfinite(value)):
        raise UserError(f"{key} holds values that are not finite")
    return value


def _raw_sigmas(state: Mapping[str, Any]) -> np.ndarray:
    """Their blur widths as trained parameters; theirs enters squared, so its sign says nothing."""
    sigmas = np.asarray([[_floats(state, key, (1,))[0] for key in row] for row in LEGACY_SIGMAS])
    if not np.all(sigmas):
        raise UserError("a sigma of its Gaussian kernels is 0, which blurs nothing")
    return np.asarray(raw_from_sigma(jnp.asarray(np.abs(sigmas), jnp.float32)))


def known_settings(imported: Imported) -> dict[str, Any]:
    """What is known of the settings of its training, as `Checkpoints.save` takes it."""
    gan = 0.15 if "discriminator" in imported.training else 0.0  # HiFiC's, the port's default
    return {
        "model": dataclasses.asdict(imported.model),
        "discriminator": dataclasses.asdict(imported.discriminator),
        "loss": {"gan": gan},
    }


def parameter_counts(imported: Imported) -> dict[str, int]:
    """Numbers of parameters by part of the model, those of the discriminator last."""
    parts = dict(imported.autoencoder)
    if "discriminator" in imported.training:
        parts["discriminator"] = imported.training["discriminator"]["params"]
    return {name: _count(tree) for name, tree in parts.items()}


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
