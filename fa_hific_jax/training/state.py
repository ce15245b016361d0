"""Training state: everything that a step changes, as one pytree."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from fa_hific_jax.losses.dynamic_spectrum import raw_from_sigma
from fa_hific_jax.models import STRIDE
from fa_hific_jax.models.autoencoder import Key, init_parameters
from fa_hific_jax.models.discriminator import SPECTRAL, Discriminator
from fa_hific_jax.settings import Settings
from fa_hific_jax.training import balance, controller, trainable
from fa_hific_jax.training.optimizers import optimizers


class DiscriminatorState(flax.struct.PyTreeNode):
    """Parameters, power-iteration vectors and optimizer state of the discriminator."""

    params: Any
    spectral: Any
    optimizer: optax.OptState


class TrainState(flax.struct.PyTreeNode):
    """State between two steps. Fields are `Any`, because JAX also builds this tree of shardings.

    Attributes:
      step: number of steps taken, int32 scalar.
      params: "autoencoder" and, in a run with DSL, "dsl_sigma", the raw widths of its blurs (see
        `sigma_from_raw`).
      optimizer: state of the autoencoder's optimizer, for the parameters that train.
      discriminator: a `DiscriminatorState`, None in a run without adversarial term.
      ema_params: EMA of the autoencoder's parameters that train, with None in place of the others;
        None if `optimizer.ema_decay` is 0. See ema.py.
      controller: a `ControllerState`, None unless `loss.rate_control` is "controller".
      balance: a `BalanceState`, None if `loss.balance` is "fixed".
      skipped: number of steps that were not finite, in total and in a row, int32 of shape (2,).
    """

    step: Any
    params: dict[str, Any]
    optimizer: optax.OptState
    discriminator: Any
    ema_params: Any
    controller: Any
    balance: Any
    skipped: Any


def create(settings: Settings, key: Key) -> TrainState:
    """Returns the state before the first step; all parameters follow from `key`.

    A UserError if no parameter's name contains one of `settings.trainable`.
    """
    key_g, key_d = jax.random.split(key)
    loss = settings.loss
    params: dict[str, Any] = {"autoencoder": init_parameters(settings.model, key_g)}
    if loss.dsl:
        shape = (1 if "shared_sigma" in loss.dsl_options else 2, 2)
        params["dsl_sigma"] = raw_from_sigma(jnp.full(shape, loss.dsl_blur[1], jnp.float32))
    trained, _ = trainable.partition(params, settings.trainable)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimizer=optimizers(settings.optimizer)[0].init(trained),
        discriminator=_discriminator(settings, key_d) if loss.gan else None,
        ema_params=trained["autoencoder"] if settings.optimizer.ema_decay else None,
        controller=controller.start(loss) if loss.rate_control == "controller" else None,
        balance=balance.start() if loss.balance != "fixed" else None,
        skipped=jnp.zeros(2, jnp.int32),
    )
    trainable.check(parameters(state), settings.trainable)
    return state


def discriminator_network(settings: Settings) -> Discriminator:
    """Returns the discriminator that belongs to the model of `settings`."""
    model = settings.model
    dtype = jnp.dtype(model.dtype)
    return Discriminator(settings.discriminator, model.variant, model.input_range, dtype)


def parameters(state: TrainState) -> dict[str, Any]:
    """Returns all parameters, those of the discriminator under "discriminator"."""
    if state.discriminator is None:
        return state.params
    return state.params | {"discriminator": state.discriminator.params}


def _discriminator(settings: Settings, key: Key) -> DiscriminatorState:
    x = jnp.zeros((1, STRIDE, STRIDE, 3))
    y_hat = jnp.zeros((1, STRIDE // 16, STRIDE // 16, settings.model.latent_channels))
    variables = discriminator_network(settings).init(key, x, y_hat)
    trained, _ = trainable.partition(variables["params"], settings.trainable, "discriminator/")
    optimizer = optimizers(settings.optimizer)[1].init(trained)
    return DiscriminatorState(variables["params"], variables[SPECTRAL], optimizer)
