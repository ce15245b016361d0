"""Everything that training changes, as one pytree."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from fa_hific_jax.losses.dynamic_spectrum import raw_from_sigma
from fa_hific_jax.models.autoencoder import STRIDE, Key, init_parameters
from fa_hific_jax.models.discriminator import SPECTRAL, Discriminator
from fa_hific_jax.settings import LossConfig, OptimizerConfig, Settings
from fa_hific_jax.training import balance, trainable
from fa_hific_jax.training.controller import start
from fa_hific_jax.training.muon import muon
from fa_hific_jax.training.schedules import learning_rate


class DiscriminatorState(flax.struct.PyTreeNode):
    """Parameters, power-iteration vectors and optimizer state of the discriminator."""

    params: Any
    spectral: Any
    optimizer: optax.OptState


class TrainState(flax.struct.PyTreeNode):
    """State between two steps; as abstract shapes, the layout of a checkpoint.

    `step` is an int32 scalar. `params` holds "autoencoder" (the model) and, in a run with DSL,
    "dsl_sigma" (raw widths of its blurs, see `sigma_from_raw`). `discriminator` is a
    `DiscriminatorState`, None in a run without adversarial term. Optimizers hold nothing of the
    parameters that do not train.

    `averaged` is the running mean of the autoencoder's parameters, with None for those that do not
    train, or None with `optimizer.ema_decay` 0; `averaged_autoencoder` gives the whole of it.
    `controller` is a `ControllerState`, None but with `loss.rate_control` "controller"; `balance` a
    `BalanceState`, None with `loss.balance` "fixed". `skipped` counts the steps that were not
    finite, in all and in a row up to now: int32 of shape (2,).

    Fields that may be None have no type, since JAX builds the same tree of shardings.
    """

    step: Any
    params: dict[str, Any]
    optimizer: optax.OptState
    discriminator: Any
    averaged: Any
    controller: Any
    balance: Any
    skipped: Any


def optimizers(
    config: OptimizerConfig,
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """That of the autoencoder with the DSL's sigmas, and the discriminator's."""
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    rate = learning_rate(config.learning_rate, config)
    generator = muon(rate) if config.kind == "muon" else optax.adam(rate)
    discriminator = optax.adam(learning_rate(config.discriminator_learning_rate, config))
    return optax.chain(clip, generator), optax.chain(clip, discriminator)


def create(settings: Settings, key: Key) -> TrainState:
    """State before the first step; every parameter follows from `key`.

    Raises:
      UserError: `settings.trainable` names what no parameter is called.
    """
    key_g, key_d = jax.random.split(key)
    x = jnp.zeros((1, STRIDE, STRIDE, 3))
    params: dict[str, Any] = {"autoencoder": init_parameters(settings.model, key_g)}
    if settings.loss.dsl:
        params["dsl_sigma"] = _raw_sigmas(settings.loss)
    optimizer_g, optimizer_d = optimizers(settings.optimizer)
    discriminator = None
    if settings.loss.gan:
        y_hat = jnp.zeros((1, STRIDE // 16, STRIDE // 16, settings.model.latent_channels))
        variables = discriminator_network(settings).init(key_d, x, y_hat)
        discriminator = DiscriminatorState(
            params=variables["params"],
            spectral=variables[SPECTRAL],
            optimizer=optimizer_d.init(split_discriminator(variables["params"], settings)[0]),
        )
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimizer=optimizer_g.init(trainable.split(params, settings.trainable)[0]),
        discriminator=discriminator,
        averaged=_first_average(params["autoencoder"], settings),
        controller=start(settings.loss) if settings.loss.rate_control == "controller" else None,
        balance=None if settings.loss.balance == "fixed" else balance.start(),
        skipped=jnp.zeros(2, jnp.int32),
    )
    trainable.check(parameters(state), settings.trainable)
    return state


def discriminator_network(settings: Settings) -> Discriminator:
    """The discriminator that belongs to the model of `settings`."""
    model = settings.model
    dtype = jnp.dtype(model.dtype)
    return Discriminator(settings.discriminator, model.variant, model.input_range, dtype)


def parameters(state: TrainState) -> dict[str, Any]:
    """All parameters under their full names, those of the discriminator under "discriminator"."""
    if state.discriminator is None:
        return state.params
    return state.params | {"discriminator": state.discriminator.params}


def averaged_autoencoder(state: TrainState) -> Any:
    """The autoencoder's parameters for inference: averaged where the run averages them."""
    return trainable.merge(state.averaged, state.params["autoencoder"])


def swapped(state: TrainState) -> TrainState:
    """`state` with averaged and latest parameters of the autoencoder in each other's place.

    So they are in a checkpoint: what inference and a later stage read there is the mean. What does
    not train is in both alike. Swapping twice changes nothing.
    """
    if state.averaged is None:
        return state
    latest = jax.tree.map(
        lambda mean, new: None if mean is None else new,
        state.averaged,
        state.params["autoencoder"],
        is_leaf=lambda leaf: leaf is None,
    )
    params = state.params | {"autoencoder": averaged_autoencoder(state)}
    return state.replace(params=params, averaged=latest)


def restart_average(state: TrainState) -> TrainState:
    """`state`, its running mean being that of its present parameters alone.

    They are copied, since buffers that a step takes over must not be the same.
    """
    copied = jax.tree.map(
        lambda old, new: None if old is None else jnp.copy(new),
        state.averaged,
        state.params["autoencoder"],
        is_leaf=lambda leaf: leaf is None,
    )
    return state.replace(averaged=copied)


def split_discriminator(params: Any, settings: Settings) -> tuple[Any, Any]:
    """(what trains, what does not) of the discriminator's parameters, see `trainable.split`."""
    trained, frozen = trainable.split({"discriminator": params}, settings.trainable)
    return trained["discriminator"], frozen["discriminator"]


def _first_average(params: Any, settings: Settings) -> Any:
    if not settings.optimizer.ema_decay:
        return None
    return trainable.split({"autoencoder": params}, settings.trainable)[0]["autoencoder"]


def _raw_sigmas(config: LossConfig) -> Array:
    rows = 1 if config.dsl_sigma_pairwise else 2
    return raw_from_sigma(jnp.full((rows, 2), config.dsl_sigma, jnp.float32))
