"""Converts checkpoints of the PyTorch HiFiC, the FA-HiFiC authors' fork, and NeuralCompression."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fa_hific_jax.convert import pytorch_layout
from fa_hific_jax.convert.pytorch_layout import HIFIC, NEURAL_COMPRESSION, Naming, converted
from fa_hific_jax.convert.torch_file import read_torch_file
from fa_hific_jax.errors import UserError, shown
from fa_hific_jax.losses.dynamic_spectrum import raw_from_sigma
from fa_hific_jax.models.autoencoder import ModelConfig
from fa_hific_jax.models.discriminator import DiscriminatorConfig

STATE = "model_state_dict"
# Pattern of the entries of the PyTorch HiFiC's state that only evaluation mode saves.
_COPIES = r"Hyperprior\.(hyper)?prior_entropy_model\..*"
# Beginnings of names in NeuralCompression's state, and the pattern of what holds no parameters.
_PARTS = ("encoder.blocks.", "decoder.block", "hyper_")
_BUFFERS = (
    r"latent_bottleneck\..*|hyper_bottleneck\.(_offset|_quantized_cdf|_cdf_length|target"
    r"|likelihood_lower_bound\.bound)"
)
# CompressAI 1.2.5 and later names the parameters of the prior as the keys.
_SPELLINGS = {"matrices": "_matrix", "biases": "_bias", "factors": "_factor"}
_NOT_PART, _AGAIN = "not part of the model", "copies and coding tables, made again by an export"
LEGACY_SIGMAS = (
    ("Encoder.gaussian_kernel_for_block1.sigma", "Encoder.gaussian_kernel_for_block2.sigma"),
    ("Generator.gaussian_kernel_for_fcm1.sigma", "Generator.gaussian_kernel_for_fcm2.sigma"),
)
"""Names of the fork's blur widths, of shape (1,), in the order of the sigmas of `spectrum_loss`."""


class Options(NamedTuple):
    """Settings that the user gives; None takes the setting from the file."""

    input_range: str | None = None
    likelihood: str | None = None
    residual_blocks: int | None = None


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


def import_checkpoint(path: str | Path, options: Options | None = None) -> Imported:
    """Returns the model from a checkpoint of the PyTorch HiFiC or NeuralCompression, in float32.

    The file may contain the state dict alone. The options take precedence over what it says.

    Raises:
      UserError: the file cannot be read (see `read_torch_file`) or is not such a checkpoint, a
        parameter is missing, unknown, of a wrong shape or not finite, or the model is of a kind
        that this package does not have.
    """
    content = read_torch_file(path)
    content = content if isinstance(content, dict) else {}
    try:
        if not (found := _neural_compression_state(content)):
            return _import_hific(content, options or Options())
        if options not in (None, Options()):
            raise UserError(
                "its parameters are those of NeuralCompression, which alone say what kind of "
                "model it is: omit --input-range, --likelihood and --residual-blocks"
            )
        state, ignored = found
        sizes = _sizes(NEURAL_COMPRESSION, state)
        model = ModelConfig(variant="neuralcompression", **sizes)
        autoencoder = converted(state, pytorch_layout.autoencoder_sources(model))
        return Imported(model, autoencoder, ignored, DiscriminatorConfig(), {})
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _neural_compression_state(content: dict) -> tuple[dict[str, Any], list[tuple[str, str]]] | None:
    """Returns the state of a `HiFiCAutoencoder`, and (name, reason) of the rest; None without one.

    The state may be the whole file or its entry "state_dict", where the names may begin with
    "module." or "model.", as wrappers save them.
    """
    state = content.get("state_dict", content)
    if not (isinstance(state, dict) and all(isinstance(key, str) for key in state)):
        return None
    for prefix in ("", "module.", "model."):
        named = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if all(any(name.startswith(part) for name in named) for part in _PARTS):
            break
    else:
        return None
    rest = {key: _NOT_PART for key in {**content, **state} if key != "state_dict"}
    found = {}
    for name, value in named.items():
        del rest[prefix + name]
        newer = re.fullmatch(r"hyper_bottleneck\.(matrices|biases|factors)\.(\d+)", name)
        older = f"hyper_bottleneck.{_SPELLINGS[newer[1]]}{newer[2]}" if newer else name
        if re.fullmatch(_BUFFERS, name):
            rest[name] = _AGAIN
        elif older in found:
            raise UserError(f"{older} is there twice, in two spellings: name an original file")
        else:
            found[older] = value
    return found, _listed(rest)


def _listed(ignored: Mapping[Any, str]) -> list[tuple[str, str]]:
    return [(shown(str(key)[:200]), reason) for key, reason in ignored.items()]


def _import_hific(content: dict, options: Options) -> Imported:
    if any(str(key).startswith("Encoder.") for key in content):
        content = {STATE: content}
    state, args, step = content.get(STATE), content.get("args", {}), content.get("steps", 0)
    if not (isinstance(state, dict) and isinstance(args, dict)):
        first = shown(str(next(iter(content), "nothing"))[:100])
        raise UserError(
            f"not a checkpoint of the PyTorch HiFiC or NeuralCompression (it begins with {first}): "
            f"they have {STATE} or parameters of an Encoder, or of encoder.blocks, decoder and "
            "hyper_bottleneck; name another file"
        )
    keys = {str(key): value for key, value in state.items() if not re.fullmatch(_COPIES, str(key))}
    rest = {key: _NOT_PART for key in content if key not in (STATE, "args", "steps")}
    rest |= {key: _AGAIN for key in state if str(key) not in keys}
    model, assumed = _model_config(keys, args, options)
    sources: dict[str, Any] = {"autoencoder": pytorch_layout.autoencoder_sources(model)}
    discriminator = DiscriminatorConfig()
    if any(key.startswith("Discriminator.") for key in keys):
        names = ("conv0", "conv1", "conv2", "conv3", "context")
        *widths, context = (_width(HIFIC, keys, f"discriminator/{name}") for name in names)
        discriminator = DiscriminatorConfig(tuple(widths), context)
        sources["discriminator"] = pytorch_layout.discriminator_sources(discriminator, model)
    if any(key.endswith(".sigma") for key in keys):
        sources["dsl_sigma"] = [
            [pytorch_layout.Source(key, (1,), pytorch_layout.SAME) for key in row]
            for row in LEGACY_SIGMAS
        ]
    training = converted(keys, sources)
    autoencoder = training.pop("autoencoder")
    if "dsl_sigma" in training:
        # The fork uses only the squares of its blur widths, so their signs have no meaning.
        widths = np.abs(training["dsl_sigma"])[..., 0]
        if not np.all(widths):
            raise UserError("a sigma of its Gaussian kernels is 0, which does not blur")
        training["dsl_sigma"] = np.asarray(raw_from_sigma(jnp.asarray(widths)))
    step = step if type(step) is int and 0 <= step < 10**12 else 0
    regime = str(args.get("regime"))
    regime = regime if regime in ("low", "med", "high") else None
    return Imported(
        model, autoencoder, _listed(rest), discriminator, training, step, regime, assumed
    )


def _model_config(
    state: Mapping[str, Any], args: Mapping[str, Any], options: Options
) -> tuple[ModelConfig, list[str]]:
    """Returns the model's settings, and the names of those that had to be assumed.

    They come from the options, the arguments of the training and the widths of the parameters.
    """
    for name in ("use_latent_mixture_model", "sample_noise"):
        if args.get(name) is True:
            raise UserError(f"it was trained with {name}, which is not supported: take another one")
    symmetric = args.get("normalize_input_image") is True
    likelihood = str(args.get("likelihood_type", "gaussian"))[:200]
    told = {"input_range": "normalize_input_image", "likelihood": "likelihood_type"}
    assumed = [n for n, arg in told.items() if not getattr(options, n) and arg not in args]
    sizes = _sizes(HIFIC, state)
    blocks = sizes["residual_blocks"]
    told_blocks = options.residual_blocks or args.get("n_residual_blocks", blocks)
    if type(told_blocks) is not int or told_blocks != blocks:
        raise UserError(
            f"it has the parameters of {blocks} residual blocks, but its arguments or the command "
            f"line say otherwise: give --residual-blocks {blocks} if that is right"
        )
    has_fcms = "Generator.FCM1.3.bias" in state
    model = ModelConfig(
        variant="pytorch",
        input_range=options.input_range or ("symmetric" if symmetric else "unit"),
        likelihood=options.likelihood or likelihood,
        **sizes,
        fcm_width=_width(HIFIC, state, "generator/fcm1/conv0") if has_fcms else 0,
        fcm="legacy" if has_fcms else "hific",
        fcm_dropout=0.5 if has_fcms else 0.0,
        hyper_rounding="noise",
        dtype="float32",
    )
    return model, assumed


def _width(naming: Naming, state: Mapping[str, Any], path: str) -> int:
    """Returns the number of output channels of one of our convolutions in their state dict."""
    name = f"{naming.module(path)}.bias"
    if name not in state:
        raise UserError(f"{name} is missing: the file does not hold a whole HiFiC")
    if not (shape := getattr(state[name], "shape", None)) or len(shape) != 1:
        raise UserError(f"{name} has the shape {shape} instead of one value per channel")
    return shape[0]


def _sizes(naming: Naming, state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the widths and the number of residual blocks of the model in their state dict."""
    blocks = (f"{naming.module(f'generator/block{i}/conv1')}.bias" for i in itertools.count())
    width, ups = functools.partial(_width, naming, state), ("up4", "up3", "up2", "up1")
    return {
        "encoder_widths": tuple(width(f"encoder/conv{i}") for i in range(5)),
        "generator_widths": tuple(width(f"generator/{name}") for name in ("conv_head", *ups)),
        "latent_channels": width("encoder/conv_out"),
        "hyper_channels": width("hyperprior/analysis/conv0"),
        "residual_blocks": len(list(itertools.takewhile(state.__contains__, blocks))),
    }


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
