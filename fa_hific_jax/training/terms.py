"""The table of the loss terms. To add a loss, add a line to `TERMS` (docs/extending.md).

    lambda r + k_M MSE + k_P LPIPS + beta G + k_FFL FFL(x_hat, x) + k_DSL DSL(C, A)

The rate r is not in the table, since its weight follows the rate control instead of a config field.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.blur import gaussian_blur
from fa_hific_jax.fidelity.authors import legacy_gaussian_blur
from fa_hific_jax.losses.band_power import power_loss
from fa_hific_jax.losses.dynamic_spectrum import sigma_from_raw, spectrum_loss
from fa_hific_jax.losses.focal_frequency import Focus, focal_frequency_loss
from fa_hific_jax.losses.gan import generator_loss
from fa_hific_jax.losses.lpips import LpipsParams, lpips
from fa_hific_jax.losses.rate_distortion import mse_255
from fa_hific_jax.models.autoencoder import AutoencoderOutput, Images, PerImage
from fa_hific_jax.models.discriminator import SPECTRAL
from fa_hific_jax.settings import LossConfig, Settings
from fa_hific_jax.training.balance import BalanceState, emphasis
from fa_hific_jax.training.state import DiscriminatorState, discriminator_network

Scalar = Float[Array, ""]


class LossInputs(NamedTuple):
    """Everything that a term of the loss may use."""

    x: Images  # originals in [0, 1]
    outputs: AutoencoderOutput
    raw_sigmas: Array | None  # (1 or 2, levels), see `sigma_from_raw`; None without DSL
    lmbda: Scalar | PerImage  # weight of the rate, for all images or for each
    detail: PerImage | None  # factor on the gradients of terms that scale with detail
    discriminator: DiscriminatorState | None
    lpips_params: LpipsParams | None
    balance: BalanceState | None
    settings: Settings


class Term(NamedTuple):
    """One term of the loss. A term of weight 0 is not computed."""

    name: str
    weight: str  # field of `LossConfig`
    value: Callable[[LossInputs], Scalar]  # unweighted, float32
    judges: tuple[str, ...] = ("x_hat",)  # outputs at which the term is differentiated
    scales_with_detail: bool = False  # each image's gradient is multiplied by its detail
    metric: str = ""  # name of the value among the metrics if it is not `name`


def _lpips(given: LossInputs) -> Scalar:
    assert given.lpips_params is not None
    return jnp.mean(lpips(given.lpips_params, given.x, given.outputs.x_hat))


def _gan(given: LossInputs) -> Scalar:
    judge, outputs = given.discriminator, given.outputs
    assert judge is not None
    # y_hat gets no gradient, and the power iteration of the spectral norms does not run.
    variables = {"params": judge.params, SPECTRAL: judge.spectral}
    y_hat = jax.lax.stop_gradient(outputs.y_hat)
    logits: Any = discriminator_network(given.settings).apply(variables, outputs.x_hat, y_hat)
    return generator_loss(logits, given.settings.loss.gan_kind)


def _ffl(given: LossInputs) -> Scalar:
    config = given.settings.loss
    options = config.ffl_options
    return focal_frequency_loss(
        given.outputs.x_hat,
        given.x,
        focus=Focus(config.alpha, "log_matrix" in options, "batch_matrix" in options),
        ave_spectrum="ave_spectrum" in options,
        emphasis=emphasis(given.balance, given.x, config),
    )


def _dsl(given: LossInputs) -> Scalar:
    assert given.raw_sigmas is not None
    config, sigmas = given.settings.loss, sigma_from_raw(given.raw_sigmas)
    options = config.dsl_options
    if "fixed_sigma" in options:
        sigmas = jax.lax.stop_gradient(sigmas)
    return spectrum_loss(
        given.outputs.encoder_features,
        given.outputs.fcm_features,
        sigmas=jnp.broadcast_to(sigmas, (2, sigmas.shape[1])),
        kernel_size=config.dsl_blur[0],
        blur=legacy_gaussian_blur if "legacy_kernel" in options else gaussian_blur,
        weighting="authors" if "channel_weighting" in options else "mean",
        focus=Focus(config.alpha),
    )


TERMS = (
    Term("mse", "mse", lambda given: mse_255(given.x, given.outputs.x_hat)),
    Term("lpips", "lpips", _lpips),
    Term("gan", "gan", _gan, scales_with_detail=True, metric="gan_generator"),
    Term("ffl", "ffl", _ffl, scales_with_detail=True),
    Term(
        "power",
        "ffl",
        lambda given: power_loss(given.outputs.x_hat, given.x),
        scales_with_detail=True,
    ),
    Term("dsl", "dsl", _dsl, judges=("encoder_features", "fcm_features"), scales_with_detail=True),
)
"""All terms but the rate. Only one of "ffl" and "power" is used (`frequency_term`)."""


def active_terms(config: LossConfig) -> list[Term]:
    """Returns the terms of a weight other than 0, in the order of the table."""
    unused = {"ffl", "power"} - {frequency_term(config)}
    return [term for term in TERMS if getattr(config, term.weight) and term.name not in unused]


def frequency_term(config: LossConfig) -> str:
    """Returns the name of the term that has the weight `loss.ffl`: FFL or the power loss."""
    return "power" if config.balance == "power" else "ffl"
