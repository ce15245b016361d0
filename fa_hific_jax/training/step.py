"""One training step: a single forward pass, then the discriminator's and the autoencoder's update.

The terms of the loss are the table `TERMS` in terms.py. With `train.accumulate` above 1 the batch
is computed in parts, and each part runs forward twice: before the discriminator's update, and after
it for the gradient.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, UInt8

from fa_hific_jax.losses.gan import discriminator_loss
from fa_hific_jax.losses.lpips import LpipsParams
from fa_hific_jax.models import autoencoder
from fa_hific_jax.models.autoencoder import AutoencoderOutput, Images, Key, Latents, PerImage
from fa_hific_jax.models.discriminator import SPECTRAL
from fa_hific_jax.settings import Settings
from fa_hific_jax.training import balance, conditioning, ema
from fa_hific_jax.training.accumulation import mean_over_parts, run_ahead
from fa_hific_jax.training.conditioning import Conditioning, image_lambda
from fa_hific_jax.training.controller import rate_weight
from fa_hific_jax.training.guards import gradient_norms, keep_if_finite, term_norms
from fa_hific_jax.training.objective import Metrics, differentiate
from fa_hific_jax.training.optimizers import optimizers
from fa_hific_jax.training.state import DiscriminatorState, TrainState, discriminator_network
from fa_hific_jax.training.terms import LossInputs
from fa_hific_jax.training.trainable import combine, partition


class Batch(NamedTuple):
    """Images in [0, 1], each with its random key and its conditioning."""

    x: Images
    keys: Array
    conditioning: Conditioning


class Forward(NamedTuple):
    """Result of a forward pass: the inputs of the losses, and the pullback of their gradients."""

    outputs: AutoencoderOutput
    raw_sigmas: Array | None  # widths of the DSL's blurs, which are parameters; None without DSL
    pullback: Callable[..., Any]  # from (outputs, raw_sigmas) to the trained parameters


class Decoded(NamedTuple):
    """Part of a forward pass that the discriminator and the rate control need."""

    x_hat: Images
    y_hat: Latents
    bpp_rounded: PerImage


def train_step(
    state: TrainState,
    images: UInt8[Array, "b h w 3"],
    key: Key,
    lpips_params: LpipsParams | None,
    *,
    settings: Settings,
) -> tuple[TrainState, Metrics]:
    """Returns the state after one step on `images` in 0..255, and the metrics of the step.

    The discriminator is updated first; the adversarial term then uses the updated one with the same
    x_hat. Noise and conditioning depend only on `key`, `state.step` and an image's place in the
    batch, so a resumed run sees the same as an unbroken one. Only parameters that
    `settings.trainable` selects are differentiated and changed. If a metric is not finite, the
    state stays as it is except for `step` and `skipped`.
    """
    batch = make_batch(images, key, state.step, settings)
    forward_pass = functools.partial(forward_vjp, state.params, settings=settings)
    decoded, forward_pass = run_ahead(forward_pass, _decoded, batch, settings.train.accumulate)
    discriminator, metrics_d = update_discriminator(state.discriminator, batch, decoded, settings)
    lmbda, target, controller = rate_weight(
        state.controller, state.step, jnp.mean(decoded.bpp_rounded), settings.loss
    )
    new_state = state.replace(discriminator=discriminator, controller=controller)
    new_state, metrics = update_autoencoder(
        new_state, batch, forward_pass, lmbda, lpips_params, settings
    )
    if target is not None:
        metrics["bpp_target"] = target
    return keep_if_finite(new_state, state, metrics | metrics_d)


def make_batch(images: UInt8[Array, "b h w 3"], key: Key, step: Array, settings: Settings) -> Batch:
    """Returns the batch of images in 0..255 at a step."""
    keys = jax.random.split(jax.random.fold_in(key, step), len(images))
    x = images.astype(jnp.float32) / 255.0
    return Batch(x, keys, conditioning.draw(keys, settings))


def forward(params: Any, batch: Batch, settings: Settings) -> AutoencoderOutput:
    """Runs the autoencoder as in training, each image with its own key and conditioning."""
    return autoencoder.forward(settings.model, params, batch.x, batch.keys, *batch.conditioning)


def forward_vjp(params: Any, batch: Batch, settings: Settings) -> Forward:
    """Runs `forward`; returns its outputs and the pullback to the parameters that train."""
    trained, frozen = partition(params, settings.trainable)

    def run(trained):
        params = combine(trained, frozen)
        return forward(params["autoencoder"], batch, settings), params.get("dsl_sigma")

    run = jax.checkpoint(run) if settings.train.recompute else run
    (outputs, raw_sigmas), pullback = jax.vjp(run, trained)
    return Forward(outputs, raw_sigmas, pullback)


def update_discriminator(
    discriminator: DiscriminatorState | None, batch: Batch, decoded: Decoded, settings: Settings
) -> tuple[DiscriminatorState | None, Metrics]:
    """Takes one Adam step of the discriminator on original and decoded images.

    Both go through one call, each image with its own latents: [x, x_hat] with [y_hat, y_hat]. (The
    PyTorch HiFiC repeats each latent twice in a row, which pairs most images of a batch with the
    latents of another image.) Only this loss contributes to the gradient. The power iteration
    advances once. A discriminator without parameters that train is returned as it is.
    """
    if discriminator is None:
        return None, {}
    trained, frozen = partition(discriminator.params, settings.trainable, "discriminator/")
    if not jax.tree.leaves(trained):
        return discriminator, {}

    def gradient(part: tuple[Batch, Decoded]):
        loss = functools.partial(_discriminator_loss, discriminator, frozen, *part, settings)
        return jax.grad(loss, has_aux=True)(trained)

    grads, (spectral, metrics) = mean_over_parts(
        gradient, (batch, decoded), settings.train.accumulate
    )
    adam = optimizers(settings.optimizer)[1]
    updates, optimizer = adam.update(grads, discriminator.optimizer, trained)
    params = combine(optax.apply_updates(trained, updates), frozen)
    norms = gradient_norms({"discriminator": grads})
    metrics["grad_norm/discriminator"] = norms["grad_norm"]
    return DiscriminatorState(params, spectral, optimizer), metrics


def _discriminator_loss(discriminator, frozen, batch: Batch, decoded: Decoded, settings, trained):
    """Returns (loss, (spectral vectors, metrics)) as a function of the trained parameters."""
    logits, mutated = discriminator_network(settings).apply(
        {"params": combine(trained, frozen), SPECTRAL: discriminator.spectral},
        jnp.concatenate([batch.x, decoded.x_hat]),
        jnp.concatenate([decoded.y_hat, decoded.y_hat]),
        mutable=[SPECTRAL],
    )
    real, fake = jnp.split(logits, 2)
    kind, detail = settings.loss.gan_kind, batch.conditioning.detail
    metrics = {
        "gan_discriminator": discriminator_loss(real, fake, kind, detail),
        "logits_real": jnp.mean(real),
        "logits_fake": jnp.mean(fake),
    }
    return metrics["gan_discriminator"], (mutated[SPECTRAL], metrics)


def update_autoencoder(
    state: TrainState,
    batch: Batch,
    forward_pass: Callable[[Batch], Forward],
    lmbda: Float[Array, ""],
    lpips_params: LpipsParams | None,
    settings: Settings,
) -> tuple[TrainState, Metrics]:
    """Takes one optimizer step of encoder, hyperprior, generator and the DSL's blur widths."""

    def gradient(part: Batch):
        forward = forward_pass(part)
        return autoencoder_gradient(forward, part, state, lmbda, lpips_params, settings)

    count = settings.train.accumulate
    grads, squares, observed, metrics = mean_over_parts(gradient, batch, count)
    trained, frozen = partition(state.params, settings.trainable)
    updates, optimizer = optimizers(settings.optimizer)[0].update(grads, state.optimizer, trained)
    trained: Any = optax.apply_updates(trained, updates)
    decay = settings.optimizer.ema_decay
    new_state = state.replace(
        params=combine(trained, frozen),
        optimizer=optimizer,
        ema_params=ema.update(state.ema_params, trained["autoencoder"], state.step, decay),
        balance=balance.observe(state.balance, observed),
    )
    psnr = {"psnr": 10 * jnp.log10(255.0**2 / jnp.maximum(metrics["mse"], 1e-6))}
    return new_state, metrics | psnr | gradient_norms(grads) | term_norms(squares, count)


def autoencoder_gradient(
    forward: Forward,
    batch: Batch,
    state: TrainState,
    lmbda: Float[Array, ""],
    lpips_params: LpipsParams | None,
    settings: Settings,
) -> tuple[Any, Metrics, balance.Observed | None, Metrics]:
    """Returns (gradient of the trained parameters, squared norms of terms, measurements, metrics).

    The loss is differentiated at the outputs; a single pullback through the networks follows.
    """
    given = LossInputs(
        x=batch.x,
        outputs=forward.outputs,
        raw_sigmas=forward.raw_sigmas,
        lmbda=image_lambda(lmbda, batch.conditioning.quality, settings.loss),
        detail=batch.conditioning.detail,
        discriminator=state.discriminator,
        lpips_params=lpips_params,
        balance=state.balance,
        settings=settings,
    )
    loss = differentiate(given)
    (grads,) = forward.pullback((loss.outputs, loss.raw_sigmas))
    return grads, loss.squares, loss.observed, loss.metrics


def _decoded(forward: Forward) -> Decoded:
    return Decoded(forward.outputs.x_hat, forward.outputs.y_hat, forward.outputs.rates.rounded)
