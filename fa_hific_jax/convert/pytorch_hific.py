"""Conversion of checkpoints of the PyTorch HiFiC, the FA-HiFiC authors' fork of it, and
NeuralCompression.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fa_hific_jax.convert import neural_compression
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
)
from fa_hific_jax.convert.torch_file import read_torch_file
from fa_hific_jax.errors import UserError, shown
from fa_hific_jax.losses.dynamic_spectrum import raw_from_sigma
from fa_hific_jax.models.autoencoder import ModelConfig
from fa_hific_jax.models.discriminator import DiscriminatorConfig

STATE = "model_state_dict"
# Patterns of the entries of a file that are not converted, with the reason.
_OTHER_ENTRIES = (
    (r"\w+_optimizer_state_dict", "an optimizer's state, training begins with a fresh one"),
    ("discriminator_state_dict", f"a second copy of the discriminator, which {STATE} holds"),
    ("epoch", "the number of steps is more exact"),
)
# Patterns of the keys that only a model saved in evaluation mode has, with the reason why they are
# not converted.
_OTHER_KEYS = (
    (
        r"Hyperprior\.hyperprior_entropy_model\.distribution\.[Hab]_\d",
        "a second copy of Hyperprior.hyperlatent_likelihood",
    ),
    (
        r"Hyperprior\.(hyperprior|prior)_entropy_model\.CDF(_offset|_length)?",
        "coding tables, which an export computes again",
    ),
    (
        r"Hyperprior\.prior_entropy_model\.(scale_table|min_scale)_tensor",
        "constants of the coding tables",
    ),
)


class Imported(NamedTuple):
    """A converted checkpoint.

    Attributes:
      model: settings of the autoencoder.
      discriminator: settings of the discriminator; HiFiC's if the file has none.
      autoencoder: parameters as `Checkpoints.save` takes them.
      training: further arrays as `Checkpoints.save` takes them, where the file has them:
        "discriminator" ("params" and "spectral") and "dsl_sigma" (raw, see `sigma_from_raw`).
      step: number of training steps, 0 if the file does not say.
      regime: "low", "med", "high", or None if the file does not say.
      ignored: (name, reason) of each entry that was not converted.
      assumed: names of the options that neither the file nor the user gave.
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
    """Returns the model from a checkpoint of the PyTorch HiFiC or NeuralCompression, in float32.

    Args:
      path: a checkpoint, or a file that contains only the state dict.
      options: take precedence over what a file of the PyTorch HiFiC says.

    Raises:
      UserError: the file cannot be read (see `read_torch_file`) or is not such a checkpoint, a
        parameter is missing, unknown, of a wrong shape or not finite, or the model is of a kind
        that this package does not have.
    """
    content = read_torch_file(path)
    try:
        if found := neural_compression.find_state(content):
            return _import_neural_compression(*found, options)
        return _import(content, options)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _import(content: Any, options: Options) -> Imported:
    state, args, step, others = _parts(content)
    check_kind(args)
    model, assumed = model_config(state, args, options)
    keys, ignored = _to_convert(state)
    sources: dict[str, Any] = {"autoencoder": autoencoder_sources(model)}
    config = discriminator_config(state)
    if any(key.startswith("Discriminator.") for key in keys):
        sources["discriminator"] = discriminator_sources(config, model)
    sigmas = LEGACY_SIGMAS if any(key.endswith(".sigma") for key in keys) else ()
    training = _converted(keys, sources, besides=sigmas)
    autoencoder = training.pop("autoencoder")
    if sigmas:
        training["dsl_sigma"] = _raw_sigmas(keys)
    regime = args.get("regime")
    known_regime = isinstance(regime, str) and regime in ("low", "med", "high")
    return Imported(
        model=model,
        discriminator=config,
        autoencoder=autoencoder,
        training=training,
        step=step,
        regime=regime if known_regime else None,
        ignored=others + ignored,
        assumed=assumed,
    )


def _import_neural_compression(
    state: dict[str, Any], others: list[tuple[str, str]], options: Options
) -> Imported:
    if options != Options():
        raise UserError(
            "its parameters are those of NeuralCompression, which alone say what kind of model it "
            "is: omit --input-range, --likelihood and --residual-blocks"
        )
    keys, ignored = neural_compression.to_convert(state)
    model = neural_compression.model_config(keys)
    return Imported(
        model=model,
        discriminator=DiscriminatorConfig(),
        autoencoder=_converted(keys, autoencoder_sources(model, neural_compression.NAMING)),
        training={},
        step=0,
        regime=None,
        ignored=others + ignored,
        assumed=[],
    )


def _parts(content: Any) -> tuple[dict[str, Any], dict[str, Any], int, list[tuple[str, str]]]:
    """Returns (state dict, training arguments, steps, ignored entries) of a checkpoint."""
    if not isinstance(content, dict) or not (STATE in content or _is_state(content)):
        raise UserError(
            f"not a checkpoint of the PyTorch HiFiC or NeuralCompression{_first_entry(content)}: "
            f"they have {STATE} or parameters of an Encoder, or of encoder.blocks, decoder and "
            "hyper_bottleneck; name another file"
        )
    if STATE not in content:
        return content, {}, 0, []
    state, args, step = content[STATE], content.get("args", {}), content.get("steps", 0)
    args = args.state if isinstance(args, Record) else args
    if not (isinstance(args, dict) and isinstance(state, dict) and all(map(_is_name, state))):
        raise UserError(
            f"{STATE} or args is not a mapping by name: the PyTorch HiFiC did not save this file"
        )
    rest = [key for key in content if _is_name(key) and key not in (STATE, "args", "steps")]
    others = [
        (shown(key[:200]), _reason(key, _OTHER_ENTRIES) or "not part of the model") for key in rest
    ]
    return state, args, step if type(step) is int and 0 <= step < 10**12 else 0, others


def _first_entry(content: Any) -> str:
    if not (isinstance(content, dict) and content):
        return ""
    return f" (it begins with {shown(str(next(iter(content)))[:100])})"


def _is_state(content: Mapping[Any, Any]) -> bool:
    return all(map(_is_name, content)) and any(key.startswith("Encoder.") for key in content)


def _is_name(key: Any) -> bool:
    return isinstance(key, str)


def _to_convert(state: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Returns the entries to convert, and (name, reason) of those that are ignored."""
    keys, ignored = {}, []
    for key, value in state.items():
        if reason := _reason(key, _OTHER_KEYS):
            ignored.append((key, reason))
        else:
            keys[key] = value
    return keys, ignored


def _reason(name: str, table: Iterable[tuple[str, str]]) -> str | None:
    return next((reason for pattern, reason in table if re.fullmatch(pattern, name)), None)


def _converted(
    state: Mapping[str, Any], sources: Any, besides: Iterable[tuple[str, ...]] = ()
) -> dict[str, Any]:
    """Returns the arrays of a tree of sources; the state must hold them and the names `besides`."""
    leaves = jax.tree.leaves(sources, is_leaf=_is_source)
    wanted = {source.key for source in leaves}.union(*besides)
    for names, problem in ((wanted - set(state), "missing"), (set(state) - wanted, "unknown")):
        if names:
            raise UserError(f"parameters are {problem}: {_listed(names)}")
    return jax.tree.map(lambda source: _array(state, source), sources, is_leaf=_is_source)


def _listed(names: Iterable[str]) -> str:
    listed = [shown(name[:200]) for name in sorted(names)]
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
        raise UserError(f"{key} does not hold floating-point numbers")
    if not np.all(np.isfinite(value)):
        raise UserError(f"{key} holds values that are not finite")
    return value


def _raw_sigmas(state: Mapping[str, Any]) -> np.ndarray:
    """Returns the fork's blur widths as trained parameters.

    The fork uses only their squares, so their signs have no meaning.
    """
    sigmas = np.asarray([[_floats(state, key, (1,))[0] for key in row] for row in LEGACY_SIGMAS])
    if not np.all(sigmas):
        raise UserError("a sigma of its Gaussian kernels is 0, which does not blur")
    return np.asarray(raw_from_sigma(jnp.asarray(np.abs(sigmas), jnp.float32)))


def known_settings(imported: Imported) -> dict[str, Any]:
    """Returns the known settings of the model's training, as `Checkpoints.save` takes them."""
    # 0.15 is HiFiC's weight and the default of the PyTorch HiFiC.
    gan = 0.15 if "discriminator" in imported.training else 0.0
    return {
        "model": dataclasses.asdict(imported.model),
        "discriminator": dataclasses.asdict(imported.discriminator),
        "loss": {"gan": gan},
    }


def parameter_counts(imported: Imported) -> dict[str, int]:
    """Returns the number of parameters of each part of the model, with the discriminator last."""
    parts = dict(imported.autoencoder)
    if "discriminator" in imported.training:
        parts["discriminator"] = imported.training["discriminator"]["params"]
    return {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in parts.items()}
