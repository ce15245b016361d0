"""Names that our parameters have in `HiFiCAutoencoder` of facebookresearch/NeuralCompression.

References: neuralcompression/models/_hific_autoencoder.py and _hific_encoder_decoder.py, whose
state dicts hold the MS-ILLM and NoGAN models, and `EntropyBottleneck` of CompressAI.
"""

import re
from collections.abc import Mapping
from typing import Any

from fa_hific_jax.convert.pytorch_layout import (
    CONVOLUTION,
    MEDIAN_OF_QUANTILES,
    PER_CHANNEL,
    SAME,
    TRANSPOSED,
    Layout,
    Naming,
)
from fa_hific_jax.convert.pytorch_options import width
from fa_hific_jax.errors import UserError, shown
from fa_hific_jax.models.autoencoder import ModelConfig

# CompressAI 1.2.5 and later names the parameters of the prior as in the second column.
_SPELLINGS = (("_matrix", "matrices."), ("_bias", "biases."), ("_factor", "factors."))
# Pattern of the buffers of CompressAI, which hold coding tables and constants.
_BUFFERS = (
    r"(hyper|latent)_bottleneck\.(_offset|_quantized_cdf|_cdf_length|target|scale_table|scale_bound"
    r"|(likelihood_lower_bound|lower_bound_scale)\.bound)"
)
_PARTS = ("encoder.blocks.", "decoder.block", "hyper_")  # beginnings of names
_REASON = "coding tables and constants of CompressAI, which an export computes again"

# Patterns of our module paths, as in `pytorch_layout`.
_MODULES = (
    (r"encoder/conv(\d)", lambda level: f"encoder.blocks.{level}.0"),
    (r"encoder/norm(\d)", lambda level: f"encoder.blocks.{level}.1"),
    (r"encoder/conv_out", lambda: "encoder.blocks.5"),
    (r"generator/norm_in", lambda: "decoder.block_0.0"),
    (r"generator/conv_head", lambda: "decoder.block_0.1"),
    (r"generator/norm_head", lambda: "decoder.block_0.2"),
    (r"generator/block(\d+)/conv1", lambda b: f"decoder.resid_blocks.{b}.sequence.0"),
    (r"generator/block(\d+)/norm1", lambda b: f"decoder.resid_blocks.{b}.sequence.1"),
    (r"generator/block(\d+)/conv2", lambda b: f"decoder.resid_blocks.{b}.sequence.3"),
    (r"generator/block(\d+)/norm2", lambda b: f"decoder.resid_blocks.{b}.sequence.4"),
    (r"generator/up(\d)", lambda level: f"decoder.blocks.{4 - level}.0"),
    (r"generator/norm(\d)", lambda level: f"decoder.blocks.{4 - level}.1"),
    (r"generator/conv_out", lambda: "decoder.blocks.4"),
    (r"hyperprior/analysis/conv(\d)", lambda i: f"hyper_analysis.{2 * i}"),
    (r"hyperprior/synthesis_mean/(?:up|conv)(\d)", lambda i: f"hyper_synthesis_mean.{2 * i}"),
    (r"hyperprior/synthesis_scale/(?:up|conv)(\d)", lambda i: f"hyper_synthesis_scale.{2 * i}"),
    (r"hyperprior(?:/prior)?", lambda: "hyper_bottleneck"),
)


def _parameter(module: str, name: str) -> tuple[str, Layout]:
    if name == "kernel":
        return "weight", TRANSPOSED if re.search(r"/up\d$", module) else CONVOLUTION
    if module == "hyperprior/prior":
        spelled = {"h": "_matrix", "b": "_bias", "a": "_factor"}
        return f"{spelled[name[0]]}{name[1:]}", SAME
    return {
        "bias": ("bias", SAME),
        "gamma": ("gamma", PER_CHANNEL),
        "beta": ("beta", PER_CHANNEL),
        "median": ("quantiles", MEDIAN_OF_QUANTILES),
    }[name]


NAMING = Naming(_MODULES, _parameter)
"""Names and layouts of the parameters, in the spelling of CompressAI up to 1.2.4."""


def find_state(content: Any) -> tuple[dict[str, Any], list[tuple[str, str]]] | None:
    """Returns the state dict of a `HiFiCAutoencoder` in a file, and (name, reason) of the rest.

    It may be the whole file or its entry "state_dict", where the names may begin with "module." or
    "model.", as wrappers save them. Returns None if there is no such state dict.
    """
    if not isinstance(content, dict):
        return None
    state, others = content, []
    if isinstance(content.get("state_dict"), dict):
        state = content["state_dict"]
        others = [str(key)[:200] for key in content if key != "state_dict"]
    for prefix in ("", "module.", "model."):
        inside = [key for key in state if isinstance(key, str) and key.startswith(prefix)]
        named = {key.removeprefix(prefix): state[key] for key in inside}
        if all(any(name.startswith(part) for name in named) for part in _PARTS):
            others += [str(key)[:200] for key in state if key not in inside]
            return named, [(shown(name), "not part of the model") for name in others]
    return None


def to_convert(state: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Returns the entries to convert, spelled as in NAMING, and (name, reason) of the others.

    Raises:
      UserError: an entry is there in both spellings.
    """
    keys, ignored = {}, []
    for key, value in state.items():
        name = _older_spelling(key)
        if re.fullmatch(_BUFFERS, key):
            ignored.append((key, _REASON))
        elif name in keys:
            raise UserError(f"{name} is there twice, in two spellings: name an original file")
        else:
            keys[name] = value
    return keys, ignored


def _older_spelling(key: str) -> str:
    for older, newer in _SPELLINGS:
        if found := re.fullmatch(rf"hyper_bottleneck\.{re.escape(newer)}(\d+)", key):
            return f"hyper_bottleneck.{older}{found[1]}"
    return key


def model_config(state: Mapping[str, Any]) -> ModelConfig:
    """Returns the model's settings from the widths of its parameters."""
    blocks = {m[1] for key in state if (m := re.match(r"decoder\.resid_blocks\.(\d+)\.", key))}
    return ModelConfig(
        variant="neuralcompression",
        encoder_widths=tuple(width(state, f"encoder.blocks.{i}.0") for i in range(5)),
        generator_widths=(
            width(state, "decoder.block_0.1"),
            *(width(state, f"decoder.blocks.{i}.0") for i in range(4)),
        ),
        latent_channels=width(state, "encoder.blocks.5"),
        hyper_channels=width(state, "hyper_analysis.0"),
        residual_blocks=len(blocks),
    )
