"""Settings of the model in a checkpoint of the PyTorch HiFiC, from its parameters and arguments."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fa_hific_jax.errors import UserError
from fa_hific_jax.models.autoencoder import ModelConfig
from fa_hific_jax.models.discriminator import DiscriminatorConfig


class Options(NamedTuple):
    """Settings that the user gives; None takes the setting from the file."""

    input_range: str | None = None
    likelihood: str | None = None
    residual_blocks: int | None = None


def check_kind(args: Mapping[str, Any]) -> None:
    """Raises a UserError if the arguments describe a kind of model that this package lacks."""
    if args.get("use_latent_mixture_model") is True:
        raise UserError(
            "its latents have a mixture model (DLMM), which is not supported: take another one"
        )
    if args.get("sample_noise") is True:
        raise UserError(
            "its generator takes noise (sample_noise), which is not supported: take another one"
        )


def model_config(
    state: Mapping[str, Any], args: Mapping[str, Any], options: Options
) -> tuple[ModelConfig, list[str]]:
    """Returns the model's settings, and the names of those that had to be assumed.

    They come from the options, the arguments of the training and the widths of the parameters.
    """
    input_range = "symmetric" if args.get("normalize_input_image") is True else "unit"
    likelihood = args.get("likelihood_type", "gaussian")
    likelihood = likelihood[:200] if isinstance(likelihood, str) else type(likelihood).__name__
    told = {"input_range": "normalize_input_image", "likelihood": "likelihood_type"}
    assumed = [n for n, arg in told.items() if getattr(options, n) is None and arg not in args]
    fcm_width = width(state, "Generator.FCM1.3") if "Generator.FCM1.3.bias" in state else 0
    levels = range(1, 5)
    model = ModelConfig(
        variant="pytorch",
        input_range=options.input_range or input_range,
        likelihood=options.likelihood or likelihood,
        encoder_widths=tuple(width(state, f"Encoder.conv_block{i}.1") for i in range(1, 6)),
        generator_widths=(
            width(state, "Generator.conv_block_init.2"),
            *(width(state, f"Generator.upconv_block{i}.0") for i in levels),
        ),
        latent_channels=width(state, "Encoder.conv_block_out.1"),
        hyper_channels=width(state, "Hyperprior.analysis_net.conv1"),
        residual_blocks=_residual_blocks(state, args, options),
        fcm_width=fcm_width,
        fcm="legacy" if fcm_width else "hific",
        fcm_dropout=0.5 if fcm_width else 0.0,
        hyper_rounding="noise",
        dtype="float32",
    )
    return model, assumed


def _residual_blocks(state: Mapping[str, Any], args: Mapping[str, Any], options: Options) -> int:
    found = len({m[1] for key in state if (m := re.match(r"Generator\.(resblock_\d+)\.", key))})
    told = options.residual_blocks or args.get("n_residual_blocks", found)
    if type(told) is not int or told != found:
        raise UserError(
            f"it has the parameters of {found} residual blocks, but its arguments or the command "
            f"line say otherwise: give --residual-blocks {found} if that is right"
        )
    return found


def discriminator_config(state: Mapping[str, Any]) -> DiscriminatorConfig:
    """Returns the settings of the discriminator; HiFiC's if the file has no discriminator."""
    if "Discriminator.context_conv.bias" not in state:
        return DiscriminatorConfig(widths=(64, 128, 256, 512), context_channels=12)
    return DiscriminatorConfig(
        widths=tuple(width(state, f"Discriminator.conv{i}") for i in range(1, 5)),
        context_channels=width(state, "Discriminator.context_conv"),
    )


def width(state: Mapping[str, Any], module: str) -> int:
    """Returns the number of output channels of a convolution in the file."""
    bias = state.get(f"{module}.bias")
    if bias is None:
        raise UserError(f"{module}.bias is missing: the file does not hold a whole HiFiC")
    if not isinstance(bias, np.ndarray) or bias.ndim != 1 or not bias.size:
        raise UserError(f"{module}.bias has {described(bias)} instead of one value per channel")
    return bias.size


def described(value: Any) -> str:
    """Returns words for the shape of an array, or "no numbers" for anything else."""
    return f"the shape {value.shape}" if isinstance(value, np.ndarray) else "no numbers"
