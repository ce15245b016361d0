"""The state of a run in its checkpoints: how it is saved, and how a run takes it up again."""

import dataclasses
import functools
import time
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from fa_hific_jax.checkpoints import Checkpoints, DamagedCheckpoint
from fa_hific_jax.models.autoencoder import Key
from fa_hific_jax.settings import Settings, TrainConfig
from fa_hific_jax.training import warm_start
from fa_hific_jax.training.ema import swapped
from fa_hific_jax.training.processes import say, warn
from fa_hific_jax.training.state import TrainState, create

MUST_MATCH = ("model", "discriminator", "trainable")  # from a run's first start to its last


def initial_state(
    settings: Settings, checkpoints: Checkpoints, placement: Any, key: Key
) -> TrainState:
    """Returns the state before the first step of this process, laid out as `placement` says.

    Where the parameters come from, in order of precedence:
      1. the newest readable checkpoint of this run, which continues as if it had never stopped;
      2. the newest checkpoint of the run in `settings.init_from`, at step 0 with a fresh optimizer;
      3. random initialization from `key`.
    """
    fresh = not checkpoints.steps()
    source = warm_start.find(settings) if fresh and settings.init_from else None
    say("initializing and compiling; the first steps take longer")
    state = jax.jit(functools.partial(create, settings), out_shardings=placement)(key)
    if source is not None:
        state, summary = warm_start.take(state, source)
        say(summary)
    return resume(state, settings, checkpoints)


def resume(state: TrainState, settings: Settings, checkpoints: Checkpoints) -> TrainState:
    """Returns the newest readable checkpoint, laid out like `state`; `state` if there is none.

    Damaged checkpoints that are newer are reported on standard error and moved aside. A UserError
    if there are checkpoints and none can be read, or the newest is of another run.
    """
    damaged: dict[int, DamagedCheckpoint] = {}
    for step in reversed(checkpoints.steps()):
        try:
            checkpoints.check_settings(step, settings, MUST_MATCH)
            autoencoder, rest = checkpoints.restore(step, *_items(state))
        except DamagedCheckpoint as error:
            damaged[step] = error
            continue
        for newer, reason in damaged.items():
            warn(f"{reason}; now in {checkpoints.set_aside(newer)}")
        if step >= settings.train.steps:
            say(f"step {step} of {settings.train.steps} is reached already")
        params = {name: rest.pop(name) for name in state.params if name in rest}
        return swapped(TrainState(params=params | {"autoencoder": autoencoder}, **rest))
    for error in damaged.values():
        raise error
    return state


def save(state: TrainState, settings: Settings, checkpoints: Checkpoints, scores: Any = None):
    """Starts writing `state` as the checkpoint of its step, with validation scores by name."""
    checkpoints.save(int(state.step), *_items(state), settings, scores)


class CheckpointTimer:
    """Decides when a checkpoint is due: every so many steps, and every so many minutes."""

    def __init__(self, config: TrainConfig):
        self._config, self._written = config, time.monotonic()

    def due(self, step: int) -> bool:
        """Returns True, in all processes alike, when a checkpoint is due after `step`.

        Process 0's clock decides, and only on steps that log.
        """
        config = self._config
        due = step % config.checkpoint_every == 0
        if config.checkpoint_minutes and step % config.log_every == 0:
            late = time.monotonic() - self._written >= 60 * config.checkpoint_minutes
            due |= bool(multihost_utils.broadcast_one_to_all(np.asarray(late)))
        if due:
            self._written = time.monotonic()
        return due


def _items(state: TrainState) -> tuple[Any, dict[str, Any]]:
    """Returns the items "autoencoder" and "training" of a checkpoint."""
    state = swapped(state)
    training = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    training |= training.pop("params")
    return training.pop("autoencoder"), training
