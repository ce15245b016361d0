"""Training from settings to checkpoints."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh, Sharding

from fa_hific_jax.checkpoints import Checkpoints
from fa_hific_jax.data.pipeline import Batches, train_batches
from fa_hific_jax.data.sources import open_source
from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.lpips import load_lpips
from fa_hific_jax.models.autoencoder import Key
from fa_hific_jax.settings import Settings
from fa_hific_jax.training import lock, record, sharding
from fa_hific_jax.training.logs import Logs
from fa_hific_jax.training.processes import leads, say, tell
from fa_hific_jax.training.progress import Progress, check_and_average
from fa_hific_jax.training.resume import CheckpointTimer, initial_state, save
from fa_hific_jax.training.state import TrainState, create
from fa_hific_jax.training.step import train_step
from fa_hific_jax.training.stopping import Stop, naming_disk_errors
from fa_hific_jax.training.summaries import count, describe, example_images
from fa_hific_jax.training.validation import validator

Metrics = dict[str, Any]  # scalars of one step by name, on the devices


def train(settings: Settings, workdir: epath.Path) -> TrainState:
    """Trains for `settings.train.steps` steps, or until asked to stop, and returns the state.

    Checkpoints, logs and records of the run are in `workdir`, where one run trains at a time. In a
    distributed run each process calls this with the same arguments. `initial_state` says where the
    parameters come from.

    Raises:
      UserError: a setting that this machine or this `workdir` cannot serve, another run in
        `workdir`, unreadable data, a full disk, or losses that are not finite
        (`check_and_average`).
    """
    config = settings.train
    mesh = sharding.data_mesh(config.fsdp, config.batch_size)
    sources = [open_source(spec) for spec in settings.data.train]
    programs = _programs(settings, mesh)
    with naming_disk_errors(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        with lock.hold(workdir) as check_lock:
            kept, best = config.checkpoints_kept, config.keep_best
            checkpoints = Checkpoints(workdir, kept, best=best, writer=True)
            state = initial_state(settings, checkpoints, programs.placement, programs.init_key)
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
            with Logs(workdir, first) as logs, Stop() as stop, _closing(checkpoints):
                run = _Run(settings, programs, batches, checkpoints, logs, stop, check_lock)
                return _steps(run, state, first)


class _Programs(NamedTuple):
    """Functions compiled for a run, and the layout of its state on the devices."""

    step: Callable[[TrainState, jax.Array], tuple[TrainState, Metrics]]  # donates the state
    gather: Callable[[TrainState], TrainState]
    validate: Callable[[TrainState], dict[str, float]] | None
    placement: Any
    rows: Sharding
    init_key: Key


def _programs(settings: Settings, mesh: Mesh) -> _Programs:
    everywhere, loss = sharding.replicated(mesh), settings.loss
    lpips_params = jax.tree.map(
        lambda leaf: jax.device_put(np.asarray(leaf), everywhere),
        load_lpips(loss.lpips_file) if loss.lpips else None,
    )
    seed = settings.train.seed
    split = jax.jit(lambda: tuple(jax.random.split(jax.random.key(seed))), out_shardings=everywhere)
    init_key, noise_key = split()
    shapes = jax.eval_shape(functools.partial(create, settings), init_key)
    placement, rows = sharding.of_state(shapes, mesh), sharding.split(mesh)
    compiled = jax.jit(
        functools.partial(train_step, settings=settings),
        in_shardings=(placement, rows, everywhere, everywhere),
        out_shardings=(placement, everywhere),
        donate_argnums=0,
    )
    validate = validator(settings, lpips_params) if settings.train.evaluate_every else None

    def step(state: TrainState, images: jax.Array) -> tuple[TrainState, Metrics]:
        return compiled(state, images, noise_key, lpips_params)

    return _Programs(step, sharding.gather(mesh), validate, placement, rows, init_key)


@contextlib.contextmanager
def _closing(checkpoints: Checkpoints) -> Iterator[None]:
    """Waits at the end for the last checkpoint, which may still be on its way to the disk."""
    try:
        yield
    except UserError:
        with contextlib.suppress(UserError):
            checkpoints.close()
        raise
    checkpoints.close()


class _Run(NamedTuple):
    """Everything that the steps of a run share."""

    settings: Settings
    programs: _Programs
    batches: Batches
    checkpoints: Checkpoints
    logs: Logs
    stop: Stop
    check_lock: Callable[[], None]


def _steps(run: _Run, state: TrainState, first: int) -> TrainState:
    """Returns the state after the steps that remain from `first` on.

    The next batch is read and sent to the devices while they compute the step before it. Metrics
    are fetched for reports alone.
    """
    config, validate = run.settings.train, run.programs.validate
    progress = Progress(first, config.steps, config.batch_size)
    timer = CheckpointTimer(config)
    pending: list[Metrics] = []

    def fetch() -> tuple[np.ndarray, jax.Array]:
        """Returns this process's part of the next batch, and the whole batch on all devices."""
        batch = progress.fetch(run.batches, pending[-1:])
        return batch, jax.make_array_from_process_local_data(run.programs.rows, batch)

    if first >= config.steps:
        return state
    batch, images = fetch()
    for step in range(first + 1, config.steps + 1):
        state, metrics = run.programs.step(state, images)
        pending.append(metrics)
        stopping = run.stop.asked(step)
        last = stopping or step == config.steps
        shown = batch
        if not last:
            batch, images = fetch()
            jax.block_until_ready(pending[-2:-1])  # Else batches would queue up on the device.
        saving = timer.due(step) or last
        validating = validate and (last or step % config.evaluate_every == 0)
        if saving or validating or step % config.log_every == 0:
            means = check_and_average(pending, step, config.max_nonfinite)
            pending.clear()
            if validate and validating:
                means |= validate(run.programs.gather(state))
            _report(run, step, means | progress.measure(step), progress)
            if saving:
                scores = {name: means[name] for name in (config.keep_best,) if name in means}
                save(state, run.settings, run.checkpoints, scores)
        if last or step % config.summary_every == 0:
            gathered = run.programs.gather(state)
            if leads():
                run.logs.images(step, example_images(gathered, shown, run.settings))
        if stopping:
            say(f"stopped after step {step} as asked: the same command goes on from there")
            break
    return state


def _report(run: _Run, step: int, means: dict[str, float], progress: Progress) -> None:
    """Logs and prints the metrics since the last report, and raises where saving has failed."""
    run.check_lock()
    run.logs.scalars(step, means | run.batches.counts())
    for sentence in run.batches.news():
        tell(f"skipped {sentence}")
    say(progress.line(step, means))
    run.checkpoints.check()
