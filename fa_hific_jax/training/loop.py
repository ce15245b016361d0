"""Training from settings to checkpoints."""

import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from fa_hific_jax.checkpoints import Checkpoints, DamagedCheckpoint
from fa_hific_jax.data.pipeline import Batches, open_sources, train_batches
from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.lpips import LpipsParams, load_lpips
from fa_hific_jax.models.autoencoder import Key
from fa_hific_jax.settings import LossConfig, Settings, TrainConfig
from fa_hific_jax.training import record, sharding, warm_start
from fa_hific_jax.training.ema import swapped
from fa_hific_jax.training.held_out import evaluator
from fa_hific_jax.training.logs import Logs
from fa_hific_jax.training.processes import leads, say
from fa_hific_jax.training.progress import Progress
from fa_hific_jax.training.state import TrainState, create
from fa_hific_jax.training.step import train_step
from fa_hific_jax.training.stopping import Stop, naming_full_disks
from fa_hific_jax.training.summaries import count, describe, example_images

MUST_MATCH = ("model", "discriminator", "trainable")
"""Settings that a run must keep from its first start to its last."""


def train(settings: Settings, workdir: epath.Path) -> TrainState:
    """State after `settings.train.steps` steps, or after that at which the run was asked to stop.

    Checkpoints, logs and records of the run are in `workdir`. Where several processes run, each
    calls this with the same arguments; their number and that of the devices change nothing but
    rounding.

    Where parameters come from, the first that applies:
      1. the newest checkpoint in `workdir` that can be read: the run goes on as if it had not
         stopped;
      2. those that the newest checkpoint in `settings.init_from` has, at step 0 and with a fresh
         optimizer;
      3. random initialisation from `settings.train.seed`.

    Raises:
      UserError: a setting that this machine or this `workdir` cannot serve, unreadable data, a full
        disk, or losses that are no longer finite (`check_and_average`).
    """
    config = settings.train
    mesh = sharding.data_mesh(config.fsdp)
    sharding.check_batch_size(config.batch_size, mesh)
    sources = open_sources(settings.data)
    everywhere = sharding.replicated(mesh)
    lpips_params = jax.tree.map(
        lambda leaf: jax.device_put(np.asarray(leaf), everywhere), _load_lpips(settings.loss)
    )
    evaluate = evaluator(settings, lpips_params) if config.evaluate_every else None
    init_key, noise_key = _keys(config.seed, everywhere)
    shapes = jax.eval_shape(functools.partial(create, settings), init_key)
    placement = sharding.of_state(shapes, mesh)
    compiled = _compiled(settings, mesh, placement)

    def step_fn(state, images):
        return compiled(state, images, noise_key, lpips_params)

    with naming_full_disks(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        checkpoints = Checkpoints(
            workdir, config.checkpoints_kept, best=config.keep_best, writer=True
        )
        state = initial_state(settings, checkpoints, placement, init_key)
        first = int(state.step)
        if leads():
            record.note_start(workdir, settings, first)
            (workdir / "parameters.txt").write_text(describe(state))
        say(f"{count(state):,} parameters, listed in {workdir / 'parameters.txt'}")
        batches = train_batches(
            settings.data,
            batch_size=config.batch_size,
            seed=config.seed,
            start_step=first,
            sources=sources,
        )
        with Logs(workdir) as logs, Stop() as stop:
            whole = sharding.gather(mesh)
            run = _Run(settings, step_fn, whole, evaluate, batches, checkpoints, logs, stop)
            try:
                state = _steps(run, state, first, sharding.split(mesh))
            except UserError:
                with contextlib.suppress(UserError):
                    checkpoints.close()  # The last good one may still be on its way.
                raise
            checkpoints.close()
    return state


@dataclasses.dataclass(frozen=True)
class _Run:
    """What the steps of a run share."""

    settings: Settings
    step_fn: Callable[..., tuple[TrainState, dict[str, Any]]]
    whole: Callable[[TrainState], TrainState]
    evaluate: Callable[[TrainState], dict[str, float]] | None
    batches: Batches
    checkpoints: Checkpoints
    logs: Logs
    stop: Stop


def _steps(run: _Run, state: TrainState, first: int, rows: jax.sharding.Sharding) -> TrainState:
    """State after the steps that remain from `first` on.

    The device always has the next step at hand while the one before it computes, and nothing is
    fetched from it but for reports: a batch is read and sent off before anything is waited for.
    """
    config = run.settings.train
    progress = Progress(first, config.steps, config.batch_size)
    due = _Due(config)
    pending: list[dict[str, Any]] = []

    def fetch():
        batch = progress.fetch(lambda: next(run.batches), idle=lambda: _ready(pending[-1:]))
        return batch, jax.make_array_from_process_local_data(rows, batch)

    if first >= config.steps:
        return state
    batch, images = fetch()
    for step in range(first + 1, config.steps + 1):
        state, metrics = run.step_fn(state, images)
        pending.append(metrics)
        stopping = run.stop.asked(step)
        last = stopping or step == config.steps
        shown = batch
        if not last:
            batch, images = fetch()
            jax.block_until_ready(pending[-2:-1])  # Else batches would queue up on the device.
        saving = last or due.checkpoint(step)
        evaluating = run.evaluate is not None and (last or step % config.evaluate_every == 0)
        if saving or evaluating or step % config.log_every == 0:
            means = check_and_average(pending, step, config.max_nonfinite)
            pending = []
            if run.evaluate is not None and evaluating:
                means |= run.evaluate(run.whole(state))
            means |= progress.measure(step)
            run.logs.scalars(step, means | run.batches.counts())
            for sentence in run.batches.news():
                print(f"skipped {sentence}", flush=True)
            say(progress.line(step, means))
            run.checkpoints.check()
            if saving:
                save(state, run.settings, run.checkpoints, _score(config, means))
        if last or step % config.summary_every == 0:
            gathered = run.whole(state)
            if leads():
                run.logs.images(step, example_images(gathered, shown, run.settings))
        if stopping:
            say(f"stopped after step {step} as asked: the same command goes on from there")
            break
    return state


class _Due:
    """When to write a checkpoint: every so many steps, and every so many minutes."""

    def __init__(self, config: TrainConfig):
        self._config, self._written = config, time.monotonic()

    def checkpoint(self, step: int) -> bool:
        """Whether now; by the clock of the first process, and that only with a log line."""
        config = self._config
        due = step % config.checkpoint_every == 0
        if config.checkpoint_minutes and step % config.log_every == 0:
            late = time.monotonic() - self._written >= 60 * config.checkpoint_minutes
            due |= bool(multihost_utils.broadcast_one_to_all(np.asarray(late)))
        if due:
            self._written = time.monotonic()
        return due


def _compiled(
    settings: Settings, mesh: Mesh, placement: Any
) -> Callable[..., tuple[TrainState, dict[str, Any]]]:
    """The training step over all devices; the state that goes in is gone afterwards."""
    everywhere, rows = sharding.replicated(mesh), sharding.split(mesh)
    return jax.jit(
        functools.partial(train_step, settings=settings),
        in_shardings=(placement, rows, everywhere, everywhere),
        out_shardings=(placement, everywhere),
        donate_argnums=0,
    )


def _keys(seed: int, everywhere: jax.sharding.Sharding) -> tuple[Key, Key]:
    """(key of the parameters, key of the noise), known to all devices."""

    def split() -> tuple[Key, Key]:
        init_key, noise_key = jax.random.split(jax.random.key(seed))
        return init_key, noise_key

    return jax.jit(split, out_shardings=everywhere)()


def _ready(metrics: list[dict[str, Any]]) -> bool:
    return all(leaf.is_ready() for leaf in jax.tree.leaves(metrics))


def _score(config: TrainConfig, means: dict[str, float]) -> dict[str, float]:
    return {name: means[name] for name in (config.keep_best,) if name in means}


def initial_state(
    settings: Settings, checkpoints: Checkpoints, placement: Any, key: Key
) -> TrainState:
    """State before the first step of this process, from where `train` says that it comes."""
    resuming = checkpoints.latest_step() is not None
    source = None if resuming or not settings.init_from else warm_start.find(settings)
    say("initialising and compiling; the first steps take longer")
    state = jax.jit(functools.partial(create, settings), out_shardings=placement)(key)
    if source is not None:
        state, summary = warm_start.take(state, source)
        say(summary)
    return resume(state, settings, checkpoints)


def resume(state: TrainState, settings: Settings, checkpoints: Checkpoints) -> TrainState:
    """The newest checkpoint that can be read, laid out as `state` is; `state` where there is none.

    Damaged ones that are newer are named on standard error and moved aside.

    Raises:
      UserError: there are checkpoints and none can be read, or the newest is of another run.
    """
    damaged: dict[int, DamagedCheckpoint] = {}
    for step in reversed(checkpoints.steps()):
        try:
            restored = _restored(state, step, settings, checkpoints)
        except DamagedCheckpoint as error:
            damaged[step] = error
            continue
        for newer, reason in damaged.items():
            target = checkpoints.set_aside(newer)
            if leads():
                print(f"warning: {reason}; now in {target}", file=sys.stderr, flush=True)
        if step >= settings.train.steps:
            say(f"step {step} of {settings.train.steps} is reached already")
        return restored
    for error in damaged.values():
        raise error
    return state


def _restored(
    state: TrainState, step: int, settings: Settings, checkpoints: Checkpoints
) -> TrainState:
    checkpoints.check_settings(step, settings, MUST_MATCH)
    autoencoder, rest = checkpoints.restore(step, *_items(state))
    params = {name: rest.pop(name) for name in state.params if name in rest}
    return swapped(TrainState(params=params | {"autoencoder": autoencoder}, **rest))


def save(
    state: TrainState,
    settings: Settings,
    checkpoints: Checkpoints,
    scores: dict[str, float] | None = None,
) -> None:
    """Starts writing `state` as the checkpoint of its step."""
    checkpoints.save(int(state.step), *_items(state), settings, scores)


def check_and_average(metrics: list[dict], last_step: int, max_nonfinite: int) -> dict[str, float]:
    """Means of the metrics of consecutive steps, the last being `last_step`, that were finite.

    NaN where none was; "skipped" and "skipped_in_row" are those of the last step.

    Raises:
      UserError: more than `max_nonfinite` in a row were not; names which metrics.
    """
    columns = {
        name: np.asarray(jax.device_get([values[name] for values in metrics]))
        for name in metrics[0]
    }
    in_row = columns["skipped_in_row"]
    if in_row.max() > max_nonfinite:
        at = int(np.argmax(in_row > max_nonfinite))
        names = ", ".join(sorted(name for name in columns if not np.isfinite(columns[name][at])))
        raise UserError(
            f"training stopped: {int(in_row[at])} steps in a row were not finite, up to step "
            f"{last_step - len(metrics) + 1 + at} ({names}); lower optimizer.learning_rate and "
            "start again from the last checkpoint"
        )
    finite = in_row == 0
    means = {
        name: float(np.mean(column[finite])) if finite.any() else np.nan
        for name, column in columns.items()
    }
    return means | {name: float(columns[name][-1]) for name in ("skipped", "skipped_in_row")}


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
    state = swapped(state)
    training = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    training |= training.pop("params")
    return training.pop("autoencoder"), training
