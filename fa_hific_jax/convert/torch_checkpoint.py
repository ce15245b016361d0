"""Converts checkpoints of the PyTorch HiFiC, the FA-HiFiC authors' fork, and NeuralCompression."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fa_hific_jax.convert import neural_compression, pytorch_hific
from fa_hific_jax.convert.pytorch_hific import LEGACY_SIGMAS, Options
from fa_hific_jax.convert.pytorch_layout import autoencoder_sources, converted, floats
from fa_hific_jax.convert.torch_file import read_torch_file
from fa_hific_jax.errors import UserError, shown
from fa_hific_jax.losses.dynamic_spectrum import raw_from_sigma
from fa_hific_jax.models.autoencoder import ModelConfig
from fa_hific_jax.models.discriminator import DiscriminatorConfig

STATE = "model_state_dict"
# Patterns of what is not converted, with the reason: entries of the file, then entries of the state
# dict that only a model saved in evaluation mode has.
_IGNORED = {
    r"\w+_optimizer_state_dict": "an optimizer's state, training begins with a fresh one",
    "discriminator_state_dict": f"a second copy of the discriminator, which {STATE} holds",
    "epoch": "the number of steps is more exact",
    r"Hyperprior\.hyperprior_entropy_model\.distribution\.[Hab]_\d": (
        "a second copy of Hyperprior.hyperlatent_likelihood"
    ),
    r"Hyperprior\.(hyperprior|prior)_entropy_model\.CDF(_offset|_length)?": (
        "coding tables, which an export computes again"
    ),
    r"Hyperprior\.prior_entropy_model\.(scale_table|min_scale)_tensor": (
        "constants of the coding tables"
    ),
}


class Imported(NamedTuple):
    """A converted checkpoint."""

    model: ModelConfig
    autoencoder: dict[str, Any]  # parameters as `Checkpoints.save` takes them
    ignored: list[tuple[str, str]]  # (name, reason) of each entry that was not converted
    discriminator: DiscriminatorConfig  # HiFiC's if the file has none
    # Further arrays as `Checkpoints.save` takes them, where the file has them: "discriminator"
    # ("params" and "spectral") and "dsl_sigma" (raw, see `sigma_from_raw`).
    training: dict[str, Any]
    step: int = 0  # of the training; 0 if the file does not say
    regime: str | None = None  # "low", "med", "high"; None if the file does not say
    assumed: list[str] = []  # names of the options that neither the file nor the user gave


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
            state, ignored = found
            if options != Options():
                raise UserError(
                    "its parameters are those of NeuralCompression, which alone say what kind of "
                    "model it is: omit --input-range, --likelihood and --residual-blocks"
                )
            naming = neural_compression.NAMING
            model = ModelConfig(variant="neuralcompression", **naming.sizes(state))
            autoencoder = converted(state, autoencoder_sources(model, naming))
            return Imported(model, autoencoder, ignored, DiscriminatorConfig(), {})
        return _import_hific(content, options)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _import_hific(content: Any, options: Options) -> Imported:
    if _by_name(content) and any(key.startswith("Encoder.") for key in content):
        content = {STATE: content}
    if not (isinstance(content, dict) and STATE in content):
        first = shown(str(next(iter(content)))[:100]) if content and type(content) is dict else ""
        raise UserError(
            "not a checkpoint of the PyTorch HiFiC or NeuralCompression"
            f"{first and f' (it begins with {first})'}: they have {STATE} or parameters of an "
            "Encoder, or of encoder.blocks, decoder and hyper_bottleneck; name another file"
        )
    state, args, step = content[STATE], content.get("args", {}), content.get("steps", 0)
    if not (isinstance(args, dict) and _by_name(state)):
        raise UserError(
            f"{STATE} or args is not a mapping by name: the PyTorch HiFiC did not save this file"
        )
    rest = [key for key in map(str, content) if key not in (STATE, "args", "steps")]
    ignored = [(shown(key[:200]), _reason(key) or "not part of the model") for key in rest]
    ignored += [(key, reason) for key in state if (reason := _reason(key))]
    keys = {key: value for key, value in state.items() if not _reason(key)}
    model, assumed = pytorch_hific.model_config(keys, args, options)
    sources: dict[str, Any] = {"autoencoder": autoencoder_sources(model, pytorch_hific.NAMING)}
    discriminator = pytorch_hific.discriminator_config(keys)
    if any(key.startswith("Discriminator.") for key in keys):
        sources["discriminator"] = pytorch_hific.discriminator_sources(discriminator, model)
    sigmas = LEGACY_SIGMAS if any(key.endswith(".sigma") for key in keys) else ()
    training = converted(keys, sources, others=sum(sigmas, ()))
    autoencoder = training.pop("autoencoder")
    if sigmas:
        training["dsl_sigma"] = _raw_sigmas(keys)
    step = step if type(step) is int and 0 <= step < 10**12 else 0
    regime = args.get("regime")
    regime = regime if isinstance(regime, str) and regime in ("low", "med", "high") else None
    return Imported(model, autoencoder, ignored, discriminator, training, step, regime, assumed)


def _by_name(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(key, str) for key in content)


def _reason(name: str) -> str:
    """Returns why an entry is not converted, "" if it is."""
    return next((why for pattern, why in _IGNORED.items() if re.fullmatch(pattern, name)), "")


def _raw_sigmas(state: Mapping[str, Any]) -> np.ndarray:
    """Returns the fork's blur widths as trained parameters.

    The fork uses only their squares, so their signs have no meaning.
    """
    sigmas = np.asarray([[floats(state, key, (1,))[0] for key in row] for row in LEGACY_SIGMAS])
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
