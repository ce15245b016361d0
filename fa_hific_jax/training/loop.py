"""Training from settings to checkpoints."""

import functools
from typing import Any

import jax
import numpy as np
from etils import epath

from fa_hific_jax.checkpoints import Checkpoints
from fa_hific_jax.data.pipeline import open_sources, train_batches
from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.lpips import LpipsParams, load_lpips
from fa_hific_jax.models.autoencoder import Key
from fa_hific_jax.settings import LossConfig, Settings
from fa_hific_jax.training import sharding, warm_start
from fa_hific_jax.training.progress import Progress
from fa_hific_jax.training.state import TrainState, create
from fa_hific_jax.training.step import train_step
from fa_hific_jax.training.summaries import count, describe, example_images, metric_writer


def train(settings: Settings, workdir: epath.Path) -> TrainState:
    """State after `settings.train.steps` steps; checkpoints and TensorBoard logs in `workdir`.

    Where parameters come from, the first that applies:
      1. the newest whole checkpoint in `workdir`: the run goes on as if it had not stopped;
      2. those that the newest checkpoint in `settings.init_from` has, at step 0 and with a fresh
         optimizer;
      3. random initialisation from `settings.train.seed`.

    Raises:
      UserError: a setting that this machine or this `workdir` cannot serve, unreadable data, or a
        loss that is no longer finite (checkpoints then end before that step).
    """
    config = settings.train
    mesh = sharding.data_mesh()
    sharding.check_batch_size(config.batch_size, mesh)
    sources = open_sources(settings.data)
    lpips_params = _load_lpips(settings.loss)
    init_key, noise_key = jax.random.split(jax.random.key(config.seed))

    workdir.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(workdir, config.checkpoints_kept)
    state = initial_state(settings, checkpoints, sharding.replicated(mesh), init_key)
    first = int(state.step)
    (workdir / "parameters.txt").write_text(describe(state))
    print(f"{count(state):,} parameters, listed in {workdir / 'parameters.txt'}", flush=True)

    step_fn = jax.jit(
        functools.partial(train_step, settings=settings),
        in_shardings=(
            sharding.replicated(mesh),
            sharding.split(mesh),
            sharding.replicated(mesh),
            sharding.replicated(mesh),
        ),
        out_shardings=sharding.replicated(mesh),
        donate_argnums=0,
    )
    batches = train_batches(
        settings.data,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=first,
        sources=sources,
    )
    progress = Progress(first, config.steps)
    with metric_writer(workdir) as writer:
        pending = []
        for step, batch in zip(range(first + 1, config.steps + 1), batches, strict=False):
            images = jax.make_array_from_process_local_data(sharding.split(mesh), batch)
            state, metrics = step_fn(state, images, noise_key, lpips_params)
            pending.append(metrics)
            last = step == config.steps
            if step % config.log_every == 0 or step % config.checkpoint_every == 0 or last:
                means = check_and_average(pending, step)
                pending = []
                writer.write_scalars(step, means | batches.counts())
                for sentence in batches.news():
                    print(f"skipped {sentence}", flush=True)
                progress.report(step, means)
            if step % config.checkpoint_every == 0 or last:
                save(state, settings, checkpoints)
            if step % config.summary_every == 0 or last:
                writer.write_images(step, example_images(state, batch, settings))
    checkpoints.close()
    return state


def initial_state(
    settings: Settings, checkpoints: Checkpoints, placement: jax.sharding.Sharding, key: Key
) -> TrainState:
    """State before the first step of this process, from where `train` says that it comes."""
    resuming = checkpoints.latest_step() is not None
    source = None if resuming or not settings.init_from else warm_start.find(settings)
    print("initialising and compiling; the first steps take longer", flush=True)
    state = jax.jit(functools.partial(create, settings), out_shardings=placement)(key)
    if source is not None:
        state, summary = warm_start.take(state, source)
        print(summary, flush=True)
    return resume(state, settings, checkpoints)


def resume(state: TrainState, settings: Settings, checkpoints: Checkpoints) -> TrainState:
    """`state`, or the newest checkpoint where there is one, laid out as `state` is."""
    step = checkpoints.latest_step()
    if step is None:
        return state
    checkpoints.check_settings(step, settings, ["model", "discriminator", "trainable"])
    if step >= settings.train.steps:
        print(f"step {step} of {settings.train.steps} is reached already", flush=True)
    autoencoder, rest = checkpoints.restore(step, *_items(state))
    params = {name: rest.pop(name) for name in state.params if name in rest}
    return TrainState(params=params | {"autoencoder": autoencoder}, **rest)


def save(state: TrainState, settings: Settings, checkpoints: Checkpoints) -> None:
    """Starts writing `state` as the checkpoint of its step."""
    checkpoints.save(int(state.step), *_items(state), settings)


def check_and_average(metrics: list[dict], last_step: int) -> dict[str, float]:
    """Means of the metrics of consecutive steps, the last being `last_step`.

    Raises:
      UserError: names the first step and the metrics that are not finite there.
    """
    columns = {
        name: np.asarray(jax.device_get([values[name] for values in metrics]))
        for name in metrics[0]
    }
    bad = {name: np.flatnonzero(~np.isfinite(column)) for name, column in columns.items()}
    bad = {name: where[0] for name, where in bad.items() if where.size}
    if bad:
        offset = min(bad.values())
        names = ", ".join(sorted(name for name, where in bad.items() if where == offset))
        raise UserError(
            f"training stopped: not finite at step {last_step - len(metrics) + 1 + offset}: "
            f"{names}; lower optimizer.learning_rate and start again from the last checkpoint"
        )
    return {name: float(np.mean(column)) for name, column in columns.items()}


def _load_lpips(config: LossConfig) -> LpipsParams | None:
    if not config.lpips:
        return None
    if not config.lpips_file:
        raise UserError(
            f"loss.lpips is {config.lpips} but loss.lpips_file names no weights: get them with "
            "`fa-hific get-lpips`, or turn the term off with --config.loss.lpips=0"
        )
    return load_lpips(config.lpips_file)


def _items(state: TrainState) -> tuple[Any, dict[str, Any]]:
    """The "autoencoder" and "training" of a checkpoint."""
    training = {"step": state.step, "optimizer": state.optimizer} | state.params
    return training.pop("autoencoder"), training | {"discriminator": state.discriminator}
