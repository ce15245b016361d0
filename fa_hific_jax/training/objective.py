"""The only place where weighted losses are summed."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.losses import lpips as lpips_loss
from fa_hific_jax.losses.band_power import power_loss
from fa_hific_jax.losses.dynamic_spectrum import sigma_from_raw, spectrum_loss
from fa_hific_jax.losses.focal_frequency import focal_frequency_loss
from fa_hific_jax.losses.gan import generator_loss
from fa_hific_jax.losses.rate_distortion import mse_255
from fa_hific_jax.models.autoencoder import AutoencoderOutput, Images, PerImage
from fa_hific_jax.settings import LossConfig

Scalar = Float[Array, ""]


def objective(
    outputs: AutoencoderOutput,
    raw_sigmas: Float[Array, "_ levels"] | None,
    x: Float[Array, "b h w 3"],
    logits_fake: Float[Array, "b hd wd 1"] | None,
    lpips_params,
    lmbda: Scalar | PerImage,
    config: LossConfig,
    views: dict[str, Images] | None = None,
    emphasis: Float[Array, "h half"] | None = None,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Loss of encoder, hyperprior and generator, and its unweighted parts by name.

    lambda bpp + k_M MSE + k_P LPIPS + beta G + k_FFL FFL(x_hat, x) + k_DSL DSL(C, A)

    A term of weight 0 is neither computed nor reported.

    Args:
      outputs: of the autoencoder in training.
      raw_sigmas: of the DSL's blurs before `sigma_from_raw`, (1, levels) where encoder and
        generator share them, else (2, levels); None without DSL.
      x: images in [0, 1].
      logits_fake: of the discriminator for x_hat, None without adversarial term.
      lpips_params: of `load_lpips`, None without perceptual term.
      lmbda: weight of the rate, of all images or of each.
      config: weights and options.
      views: x_hat once for each of `terms_of_x_hat`, to tell their gradients apart; without,
        that of `outputs`.
      emphasis: factor on each frequency of FFL, see `focal_frequency_loss`.
    """
    seen = views or dict.fromkeys(terms_of_x_hat(config), outputs.x_hat)
    mse = mse_255(x, seen["mse"])
    loss = jnp.mean(lmbda * outputs.rates.noisy) + config.mse * mse
    metrics = {
        "lambda_rate": jnp.mean(lmbda),
        "bpp_noisy": jnp.mean(outputs.rates.noisy),
        "bpp_rounded": jnp.mean(outputs.rates.rounded),
        "bpp_rounded_z": jnp.mean(outputs.rates.rounded_z),
        "mse": mse,
    }
    if config.lpips:
        metrics["lpips"] = jnp.mean(lpips_loss.lpips(lpips_params, x, seen["lpips"]))
        loss += config.lpips * metrics["lpips"]
    if config.gan:
        assert logits_fake is not None
        metrics["gan_generator"] = generator_loss(logits_fake, config.gan_kind)
        loss += config.gan * metrics["gan_generator"]
    if config.ffl:
        term = frequency_term(config)
        if term == "power":
            metrics[term] = power_loss(seen[term], x)
        else:
            options = _ffl_options(config)
            metrics[term] = focal_frequency_loss(seen[term], x, emphasis=emphasis, **options)
        loss += config.ffl * metrics[term]
    if config.dsl:
        assert raw_sigmas is not None
        sigmas = sigma_from_raw(raw_sigmas)
        if not config.dsl_sigma_learned:
            sigmas = jax.lax.stop_gradient(sigmas)
        metrics["dsl"] = spectrum_loss(
            outputs.encoder_features,
            outputs.fcm_features,
            sigmas=jnp.broadcast_to(sigmas, (2, sigmas.shape[1])),
            kernel_size=config.dsl_kernel_size,
            legacy_kernel=config.dsl_legacy_kernel,
            weighting=config.dsl_weighting,
            alpha=config.dsl_alpha,
        )
        metrics["dsl_sigma"] = jnp.mean(sigmas)
        loss += config.dsl * metrics["dsl"]
    return loss, metrics | {"loss": loss}


def terms_of_x_hat(config: LossConfig) -> list[str]:
    """The terms that judge the decoded image: rate and DSL do not see it."""
    terms = ["mse"] + [term for term in ("lpips", "gan") if getattr(config, term)]
    return terms + ([frequency_term(config)] if config.ffl else [])


def frequency_term(config: LossConfig) -> str:
    """The one of weight `loss.ffl`: FFL, or what stands in its place (`loss.balance`)."""
    return "power" if config.balance == "power" else "ffl"


def _ffl_options(config: LossConfig) -> dict:
    return {
        "alpha": config.ffl_alpha,
        "patch_factor": config.ffl_patch_factor,
        "ave_spectrum": config.ffl_ave_spectrum,
        "log_matrix": config.ffl_log_matrix,
        "batch_matrix": config.ffl_batch_matrix,
    }
