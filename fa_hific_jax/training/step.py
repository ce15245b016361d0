"""One step of training: discriminator first, then everything else, from a single forward pass."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, UInt8

from fa_hific_jax.losses.gan import discriminator_loss
from fa_hific_jax.models import autoencoder
from fa_hific_jax.models.autoencoder import AutoencoderOutput, Key
from fa_hific_jax.models.discriminator import SPECTRAL
from fa_hific_jax.settings import Settings
from fa_hific_jax.training.objective import objective
from fa_hific_jax.training.state import (
    DiscriminatorState,
    TrainState,
    discriminator_network,
    optimizers,
    split_discriminator,
)
from fa_hific_jax.training.trainable import merge, split

Metrics = dict[str, Float[Array, ""]]


def train_step(
    state: TrainState,
    images: UInt8[Array, "b h w 3"],
    key: Key,
    lpips_params,
    *,
    settings: Settings,
) -> tuple[TrainState, Metrics]:
    """State after one step on `images` in 0..255, and the values that led there.

    The discriminator takes its step first, then judges the same x_hat for the generator; the
    autoencoder runs forward once. Noise follows from `key` and `state.step` alone, so a resumed
    run sees what an unbroken one would. Only what `settings.trainable` names is differentiated
    and changed; a discriminator of which nothing trains judges as it is.
    """
    x = images.astype(jnp.float32) / 255.0
    noise_key = jax.random.fold_in(key, state.step)
    trained, frozen = split(state.params, settings.trainable)

    def forward(params) -> AutoencoderOutput:
        whole = merge(params, frozen["autoencoder"])
        return autoencoder.apply(settings.model, whole, x, noise_key)

    outputs, pullback = jax.vjp(forward, trained["autoencoder"])
    discriminator, metrics_d = state.discriminator, {}
    if discriminator is not None and _any(split_discriminator(discriminator.params, settings)[0]):
        discriminator, metrics_d = update_discriminator(discriminator, x, outputs, settings)

    def loss_of_outputs(outputs: AutoencoderOutput, trained_sigmas):
        raw_sigmas = merge(trained_sigmas, frozen.get("dsl_sigma"))
        logits_fake = None
        if discriminator is not None:
            logits_fake = judge(discriminator, outputs.x_hat, outputs.y_hat, settings)
        return objective(
            outputs, raw_sigmas, x, logits_fake, lpips_params, state.step, settings.loss
        )

    (grad_outputs, grad_sigmas), metrics_g = jax.grad(
        loss_of_outputs, argnums=(0, 1), has_aux=True
    )(outputs, trained.get("dsl_sigma"))
    grads = {"autoencoder": pullback(grad_outputs)[0]}
    if "dsl_sigma" in trained:
        grads["dsl_sigma"] = grad_sigmas
    updates, optimizer = optimizers(settings.optimizer)[0].update(grads, state.optimizer, trained)
    new_state = TrainState(
        step=state.step + 1,
        params=merge(optax.apply_updates(trained, updates), frozen),
        optimizer=optimizer,
        discriminator=discriminator,
    )
    return new_state, metrics_d | metrics_g | {"grad_norm": norm(grads)}


def _any(tree) -> bool:
    return bool(jax.tree.leaves(tree))


def norm(tree) -> Float[Array, ""]:
    """Euclidean norm of all leaves together."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))


def judge(
    discriminator: DiscriminatorState,
    x_hat: Float[Array, "b h w 3"],
    y_hat: Float[Array, "b hy wy cy"],
    settings: Settings,
) -> Float[Array, "b hd wd 1"]:
    """Logits of x_hat; the latents are a fixed condition, its state is untouched."""
    variables = {"params": discriminator.params, SPECTRAL: discriminator.spectral}
    logits: Any = discriminator_network(settings).apply(
        variables, x_hat, jax.lax.stop_gradient(y_hat)
    )
    return logits


def update_discriminator(
    discriminator: DiscriminatorState,
    x: Float[Array, "b h w 3"],
    outputs: AutoencoderOutput,
    settings: Settings,
) -> tuple[DiscriminatorState, Metrics]:
    """One Adam step of the discriminator on real and reconstructed images.

    Both halves go through one call, each image beside its own latents: [x, x_hat] with
    [y_hat, y_hat]. (Repeating each latent twice in a row, as the PyTorch HiFiC does, would judge
    most images of a batch under another image's latents.) The gradient is that of this loss alone:
    nothing of the generator's loss reaches these parameters.
    """
    images = jnp.concatenate([x, jax.lax.stop_gradient(outputs.x_hat)])
    latents = jax.lax.stop_gradient(jnp.concatenate([outputs.y_hat, outputs.y_hat]))

    trained, frozen = split_discriminator(discriminator.params, settings)

    def loss_of_params(params):
        logits, mutated = discriminator_network(settings).apply(
            {"params": merge(params, frozen), SPECTRAL: discriminator.spectral},
            images,
            latents,
            mutable=[SPECTRAL],
        )
        real, fake = jnp.split(logits, 2)
        loss = discriminator_loss(real, fake, settings.loss.gan_kind)
        return loss, (mutated[SPECTRAL], jnp.mean(real), jnp.mean(fake))

    (loss, (spectral, real, fake)), grads = jax.value_and_grad(loss_of_params, has_aux=True)(
        trained
    )
    updates, optimizer = optimizers(settings.optimizer)[1].update(
        grads, discriminator.optimizer, trained
    )
    params = merge(optax.apply_updates(trained, updates), frozen)
    metrics = {"gan_discriminator": loss, "logits_real": real, "logits_fake": fake}
    return DiscriminatorState(params, spectral, optimizer), metrics
