"""Names, layouts and settings of the PyTorch HiFiC and of the FA-HiFiC authors' fork of it.

References: J. Tan's port of HiFiC (Justin-Tan/high-fidelity-generative-compression, src/network and
src/compression) and the fork (src/network/generator.py for FCM1 and FCM2).
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fa_hific_jax.convert.pytorch_layout import (
    CONVOLUTION,
    PARAMETERS,
    SAME,
    TRANSPOSED,
    Layout,
    Naming,
)
from fa_hific_jax.errors import UserError
from fa_hific_jax.models import STRIDE
from fa_hific_jax.models.autoencoder import ModelConfig
from fa_hific_jax.models.discriminator import SPECTRAL, Discriminator, DiscriminatorConfig

LEGACY_SIGMAS = (
    ("Encoder.gaussian_kernel_for_block1.sigma", "Encoder.gaussian_kernel_for_block2.sigma"),
    ("Generator.gaussian_kernel_for_fcm1.sigma", "Generator.gaussian_kernel_for_fcm2.sigma"),
)
"""Names of the fork's blur widths, each of shape (1,), in the order of the sigmas of
`spectrum_loss`."""

_MODULES = (
    (r"encoder/conv(\d)", lambda level: f"Encoder.conv_block{level + 1}.1"),
    (r"encoder/norm(\d)", lambda level: f"Encoder.conv_block{level + 1}.2"),
    (r"encoder/conv_out", lambda: "Encoder.conv_block_out.1"),
    (r"generator/norm_in", lambda: "Generator.conv_block_init.0"),
    (r"generator/conv_head", lambda: "Generator.conv_block_init.2"),
    (r"generator/norm_head", lambda: "Generator.conv_block_init.3"),
    (r"generator/block(\d+)/conv(\d)", lambda b, i: f"Generator.resblock_{b}.conv{i}"),
    (r"generator/block(\d+)/norm(\d)", lambda b, i: f"Generator.resblock_{b}.norm{i}"),
    (r"generator/up(\d)", lambda level: f"Generator.upconv_block{5 - level}.0"),
    (r"generator/norm(\d)", lambda level: f"Generator.upconv_block{5 - level}.1"),
    (r"generator/fcm(\d)/norm(\d)", lambda fcm, i: f"Generator.FCM{fcm}.{4 * i}"),
    (r"generator/fcm(\d)/conv(\d)", lambda fcm, i: f"Generator.FCM{fcm}.{4 * i + 3}"),
    (r"generator/conv_out", lambda: "Generator.conv_block_out.1"),
    (r"hyperprior/analysis/conv(\d)", lambda i: f"Hyperprior.analysis_net.conv{i + 1}"),
    (r"hyperprior/synthesis_mean/\w+(\d)", lambda i: f"Hyperprior.synthesis_mu.conv{i + 1}"),
    (r"hyperprior/synthesis_scale/\w+(\d)", lambda i: f"Hyperprior.synthesis_std.conv{i + 1}"),
    (r"hyperprior/prior", lambda: "Hyperprior.hyperlatent_likelihood"),
    (r"discriminator/context", lambda: "Discriminator.context_conv"),
    (r"discriminator/conv(\d)", lambda layer: f"Discriminator.conv{layer + 1}"),
    (r"discriminator/conv_out", lambda: "Discriminator.conv_out"),
)


def _parameter(module: str, name: str) -> tuple[str, Layout]:
    if name == "kernel" and re.search(r"/up\d$|/synthesis_", module):
        return "weight", TRANSPOSED
    if name == "kernel" and re.search(r"^discriminator/conv\d", module):
        return "weight_orig", CONVOLUTION
    if module == "hyperprior/prior":
        return f"{name[0].upper() if name[0] == 'h' else name[0]}_{name[1]}", SAME
    return PARAMETERS[name]


NAMING = Naming(_MODULES, _parameter)

# Arguments of models of kinds that this package lacks.
_UNSUPPORTED = {
    "use_latent_mixture_model": "its latents have a mixture model (DLMM)",
    "sample_noise": "its generator takes noise (sample_noise)",
}


class Options(NamedTuple):
    """Settings that the user gives; None takes the setting from the file."""

    input_range: str | None = None
    likelihood: str | None = None
    residual_blocks: int | None = None


def discriminator_sources(config: DiscriminatorConfig, model: ModelConfig) -> dict[str, Any]:
    """Returns the trees "params" and "spectral" of the discriminator with `Source`s as leaves."""
    x = jax.ShapeDtypeStruct((1, STRIDE, STRIDE, 3), jnp.float32)
    side = STRIDE // 16
    y_hat = jax.ShapeDtypeStruct((1, side, side, model.latent_channels), jnp.float32)
    network = Discriminator(config, model.variant, model.input_range)
    variables = jax.eval_shape(network.init, jax.random.key(0), x, y_hat)
    names = {"params": variables["params"], "spectral": variables[SPECTRAL]}
    return {name: NAMING.sources(tree, "discriminator") for name, tree in names.items()}


def model_config(
    state: Mapping[str, Any], args: Mapping[str, Any], options: Options
) -> tuple[ModelConfig, list[str]]:
    """Returns the model's settings, and the names of those that had to be assumed.

    They come from the options, the arguments of the training and the widths of the parameters.

    Raises:
      UserError: these contradict each other, or the model is of a kind that this package lacks.
    """
    for name, kind in _UNSUPPORTED.items():
        if args.get(name) is True:
            raise UserError(f"{kind}, which is not supported: take another one")
    input_range = "symmetric" if args.get("normalize_input_image") is True else "unit"
    likelihood = args.get("likelihood_type", "gaussian")
    likelihood = likelihood[:200] if isinstance(likelihood, str) else type(likelihood).__name__
    told = {"input_range": "normalize_input_image", "likelihood": "likelihood_type"}
    assumed = [n for n, arg in told.items() if not getattr(options, n) and arg not in args]
    sizes = NAMING.sizes(state)
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
        input_range=options.input_range or input_range,
        likelihood=options.likelihood or likelihood,
        **sizes,
        fcm_width=NAMING.width(state, "generator/fcm1/conv0") if has_fcms else 0,
        fcm="legacy" if has_fcms else "hific",
        fcm_dropout=0.5 if has_fcms else 0.0,
        hyper_rounding="noise",
        dtype="float32",
    )
    return model, assumed


def discriminator_config(state: Mapping[str, Any]) -> DiscriminatorConfig:
    """Returns the settings of the discriminator; HiFiC's if the file has no discriminator."""
    if "Discriminator.context_conv.bias" not in state:
        return DiscriminatorConfig()
    widths = tuple(NAMING.width(state, f"discriminator/conv{i}") for i in range(4))
    return DiscriminatorConfig(widths, NAMING.width(state, "discriminator/context"))
