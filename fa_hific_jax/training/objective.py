"""The only place where weighted losses are summed."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fa_hific_jax.losses import lpips as lpips_loss
from fa_hific_jax.losses.dynamic_spectrum import sigma_from_raw, spectrum_loss
from fa_hific_jax.losses.focal_frequency import focal_frequency_loss
from fa_hific_jax.losses.gan import generator_loss
from fa_hific_jax.losses.rate_distortion import mse_255, weighted_rate
from fa_hific_jax.models.autoencoder import AutoencoderOutput
from fa_hific_jax.settings import LossConfig
from fa_hific_jax.training.schedules import rate_terms

Scalar = Float[Array, ""]


def objective(
    outputs: AutoencoderOutput,
    raw_sigmas: Float[Array, "_ levels"] | None,
    x: Float[Array, "b h w 3"],
    logits_fake: Float[Array, "b hd wd 1"] | None,
    lpips_params,
    step: Int[Array, ""],
    config: LossConfig,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Loss of encoder, hyperprior and generator, and its unweighted parts by name.

    lambda(bpp) * bpp + k_M MSE + k_P LPIPS + beta G + k_FFL FFL(x_hat, x) + k_DSL DSL(C, A)

    A term of weight 0 is neither computed nor reported.

    Args:
      outputs: of the autoencoder in training.
      raw_sigmas: of the DSL's blurs before `sigma_from_raw`, (1, levels) where encoder and
        generator share them, else (2, levels); None without DSL.
      x: images in [0, 1].
      logits_fake: of the discriminator for x_hat, None without adversarial term.
      lpips_params: of `load_lpips`, None without perceptual term.
      step: decides target and weight of the rate.
      config: weights and options.
    """
    target, lambda_above, lambda_below = rate_terms(step, config)
    bpp_noisy, bpp_rounded = jnp.mean(outputs.rates.noisy), jnp.mean(outputs.rates.rounded)
    rate, lmbda = weighted_rate(
        bpp_noisy, bpp_rounded, target=target, lambda_above=lambda_above, lambda_below=lambda_below
    )
    mse = mse_255(x, outputs.x_hat)
    loss = rate + config.mse * mse
    metrics = {
        "bpp_noisy": bpp_noisy,
        "bpp_rounded": bpp_rounded,
        "bpp_rounded_z": jnp.mean(outputs.rates.rounded_z),
        "bpp_target": target,
        "lambda_rate": lmbda,
        "mse": mse,
        "psnr": 10 * jnp.log10(255.0**2 / jnp.maximum(mse, 1e-6)),
    }
    if config.lpips:
        metrics["lpips"] = jnp.mean(lpips_loss.lpips(lpips_params, x, outputs.x_hat))
        loss += config.lpips * metrics["lpips"]
    if config.gan:
        assert logits_fake is not None
        metrics["gan_generator"] = generator_loss(logits_fake, config.gan_kind)
        loss += config.gan * metrics["gan_generator"]
    if config.ffl:
        metrics["ffl"] = focal_frequency_loss(outputs.x_hat, x, **_ffl_options(config))
        loss += config.ffl * metrics["ffl"]
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


def _ffl_options(config: LossConfig) -> dict:
    return {
        "alpha": config.ffl_alpha,
        "patch_factor": config.ffl_patch_factor,
        "ave_spectrum": config.ffl_ave_spectrum,
        "log_matrix": config.ffl_log_matrix,
        "batch_matrix": config.ffl_batch_matrix,
    }
