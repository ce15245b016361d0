"""Names that our parameters have in `HiFiCAutoencoder` of facebookresearch/NeuralCompression.

References: neuralcompression/models/_hific_autoencoder.py and _hific_encoder_decoder.py, whose
state dicts hold the MS-ILLM and NoGAN models, and `EntropyBottleneck` of CompressAI.
"""

import re
from typing import Any

from fa_hific_jax.convert.pytorch_layout import PARAMETERS, SAME, TRANSPOSED, Layout, Naming
from fa_hific_jax.errors import UserError, shown

# CompressAI 1.2.5 and later names the parameters of the prior as the keys.
_SPELLINGS = {"matrices.": "_matrix", "biases.": "_bias", "factors.": "_factor"}
# Pattern of the buffers of CompressAI, which hold coding tables and constants.
_BUFFERS = (
    r"(hyper|latent)_bottleneck\.(_offset|_quantized_cdf|_cdf_length|target|scale_table|scale_bound"
    r"|(likelihood_lower_bound|lower_bound_scale)\.bound)"
)
_PARTS = ("encoder.blocks.", "decoder.block", "hyper_")  # beginnings of names
_REASON = "coding tables and constants of CompressAI, which an export computes again"

_MODULES = (
    (r"encoder/conv(\d)", lambda level: f"encoder.blocks.{level}.0"),
    (r"encoder/norm(\d)", lambda level: f"encoder.blocks.{level}.1"),
    (r"encoder/conv_out", lambda: "encoder.blocks.5"),
    (r"generator/norm_in", lambda: "decoder.block_0.0"),
    (r"generator/conv_head", lambda: "decoder.block_0.1"),
    (r"generator/norm_head", lambda: "decoder.block_0.2"),
    (
        r"generator/block(\d+)/conv(\d)",
        lambda b, i: f"decoder.resid_blocks.{b}.sequence.{3 * i - 3}",
    ),
    (
        r"generator/block(\d+)/norm(\d)",
        lambda b, i: f"decoder.resid_blocks.{b}.sequence.{3 * i - 2}",
    ),
    (r"generator/up(\d)", lambda level: f"decoder.blocks.{4 - level}.0"),
    (r"generator/norm(\d)", lambda level: f"decoder.blocks.{4 - level}.1"),
    (r"generator/conv_out", lambda: "decoder.blocks.4"),
    (r"hyperprior/analysis/conv(\d)", lambda i: f"hyper_analysis.{2 * i}"),
    (r"hyperprior/synthesis_mean/(?:up|conv)(\d)", lambda i: f"hyper_synthesis_mean.{2 * i}"),
    (r"hyperprior/synthesis_scale/(?:up|conv)(\d)", lambda i: f"hyper_synthesis_scale.{2 * i}"),
    (r"hyperprior(?:/prior)?", lambda: "hyper_bottleneck"),
)


def _parameter(module: str, name: str) -> tuple[str, Layout]:
    if name == "kernel" and re.search(r"/up\d$", module):
        return "weight", TRANSPOSED
    if module == "hyperprior/prior":
        spelled = {"h": "_matrix", "b": "_bias", "a": "_factor"}
        return f"{spelled[name[0]]}{name[1:]}", SAME
    return PARAMETERS[name]


NAMING = Naming(_MODULES, _parameter)
"""Names and layouts of the parameters, in the spelling of CompressAI up to 1.2.4."""


def find_state(content: Any) -> tuple[dict[str, Any], list[tuple[str, str]]] | None:
    """Returns the state dict of a `HiFiCAutoencoder` in a file, and (name, reason) of the rest.

    The state is spelled as in NAMING. It may be the whole file or its entry "state_dict", where the
    names may begin with "module." or "model.", as wrappers save them. Returns None if there is no
    such state dict.

    Raises:
      UserError: an entry is there in both spellings.
    """
    if not isinstance(content, dict):
        return None
    state, others = content, []
    if isinstance(content.get("state_dict"), dict):
        state, others = content["state_dict"], [key for key in content if key != "state_dict"]
    for prefix in ("", "module.", "model."):
        inside = [key for key in state if isinstance(key, str) and key.startswith(prefix)]
        names = [key.removeprefix(prefix) for key in inside]
        if all(any(name.startswith(part) for name in names) for part in _PARTS):
            break
    else:
        return None
    others += [key for key in state if key not in inside]
    ignored = [(shown(str(key)[:200]), "not part of the model") for key in others]
    found = {}
    for key, name in zip(inside, names, strict=True):
        newer = re.fullmatch(r"hyper_bottleneck\.(matrices\.|biases\.|factors\.)(\d+)", name)
        older = f"hyper_bottleneck.{_SPELLINGS[newer[1]]}{newer[2]}" if newer else name
        if re.fullmatch(_BUFFERS, name):
            ignored.append((name, _REASON))
        elif older in found:
            raise UserError(f"{older} is there twice, in two spellings: name an original file")
        else:
            found[older] = state[key]
    return found, ignored
