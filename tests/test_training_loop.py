"""The loop as a whole: it resumes exactly, stops on what is not finite, keeps its checkpoints."""

import functools
import shutil
from unittest import mock

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image
from tiny_settings import tiny_settings

from fa_hific_jax import settings as settings_lib
from fa_hific_jax.checkpoints import Checkpoints, load_autoencoder
from fa_hific_jax.data.pipeline import Batches
from fa_hific_jax.errors import UserError
from fa_hific_jax.training import logs, loop
from fa_hific_jax.training.loop import train
from fa_hific_jax.training.progress import Progress, check_and_average, duration
from fa_hific_jax.training.resume import resume, save
from fa_hific_jax.training.state import create

pytestmark = pytest.mark.usefixtures("standard_promotion")

# Without what takes long to compile and does not matter to a loop.
PLAIN = {"loss__dsl": 0.0, "model__fcm_width": 0, "loss__gan": 0.0}
run_settings = functools.partial(tiny_settings, **PLAIN)


def equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    workdir = epath.Path(tmp_path_factory.mktemp("unbroken"))
    return train(run_settings(), workdir), workdir


def test_a_resumed_run_compiles_one_step_and_ends_with_the_bits_of_an_unbroken_one(
    unbroken, tmp_path, monkeypatch
):
    traces, programs = [], []
    train_step, jit = loop.train_step, jax.jit

    def traced(*args, **kwargs):
        traces.append(args)
        return train_step(*args, **kwargs)

    def watched(function, **options):
        program = jit(function, **options)
        if getattr(function, "func", None) is traced:
            programs.append(program)
        return program

    monkeypatch.setattr(logs, "_event_writer", mock.MagicMock())  # slow to start
    monkeypatch.setattr(loop, "train_step", traced)
    monkeypatch.setattr(jax, "jit", watched)
    state, workdir = unbroken
    shutil.copytree(workdir / "checkpoints" / "3", tmp_path / "checkpoints" / "3")
    equal(train(run_settings(), epath.Path(tmp_path)), state)
    # One program for each kind of argument that it ever met: sizes, types and shardings.
    assert len(traces) == 1 and [program._cache_size() for program in programs] == [1]


def test_a_finished_run_is_left_as_it_is_with_its_model_and_settings(unbroken):
    state, workdir = unbroken
    equal(train(run_settings(), workdir), state)
    params, step, known, _ = load_autoencoder(workdir)
    assert step == 6 and settings_lib.from_mapping(known) == run_settings()
    equal(params, state.params["autoencoder"])


def test_logs_hold_scalars_images_and_spectra(unbroken):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs = EventAccumulator(str(unbroken[1] / "logs"))
    logs.Reload()
    assert set(logs.Tags()["scalars"]) >= {"loss", "bpp_rounded", "psnr", "ffl", "grad_norm"}
    images = {"original", "reconstruction", "original_spectrum", "reconstruction_spectrum"}
    assert set(logs.Tags()["images"]) >= images


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"model__latent_channels": 8}, "model.latent_channels=4, the config says 8"),
        ({"trainable": ("fcm",)}, r"trainable=\[\], the config says \['fcm'\]"),
    ],
)
def test_resuming_another_model_or_with_others_frozen_is_refused(unbroken, changes, difference):
    checkpoints = Checkpoints(unbroken[1], kept=None)
    with pytest.raises(UserError, match=f"step 6 was made with {difference}: use that run's"):
        resume(unbroken[0], run_settings(**changes), checkpoints)
    checkpoints.close()


def test_a_checkpoint_gives_the_running_mean_to_inference_and_all_to_the_run(tmp_path):
    """Also with parameters that do not train, which have neither a mean nor moments."""
    kinds = {"loss__gan": 0.01, "optimizer__ema_decay": 0.9, "loss__rate_control": "controller"}
    settings = run_settings(trainable=("generator/",), **kinds)
    init = jax.jit(functools.partial(create, settings))
    state, other = init(jax.random.key(0)), init(jax.random.key(1))
    state = state.replace(ema_params=jax.tree.map(lambda leaf: leaf + 1.0, state.ema_params))
    checkpoints = Checkpoints(epath.Path(tmp_path), kept=None)
    save(state, settings, checkpoints)
    checkpoints.close()
    checkpoints = Checkpoints(epath.Path(tmp_path), kept=None)
    equal(resume(other, settings, checkpoints), state)
    checkpoints.close()
    params, latest = load_autoencoder(epath.Path(tmp_path), settings)[0], state.params
    equal(params["encoder"], latest["autoencoder"]["encoder"])
    moved = jax.tree.map(lambda leaf: leaf + 1.0, latest["autoencoder"]["generator"])
    equal(params["generator"], moved)


@pytest.mark.long
def test_a_diverging_run_stops_by_name_and_keeps_its_last_good_checkpoint(tmp_path):
    workdir = epath.Path(tmp_path)
    train(run_settings(train__steps=3), workdir)
    with pytest.raises(UserError, match=r"2 steps in a row were not finite, up to step [5678] \("):
        diverging = {"optimizer__learning_rate": 1e30, "train__max_nonfinite": 1}
        train(run_settings(**diverging, train__steps=9), workdir)
    assert load_autoencoder(workdir, run_settings())[1] == 3


@pytest.mark.long
def test_damaged_images_are_counted_and_named_once(tmp_path, capsys, monkeypatch):
    counted = []
    counts = Batches.counts
    monkeypatch.setattr(Batches, "counts", lambda self: counted.append(counts(self)) or counted[-1])
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (300, 40), (99 * i, 0, 0)).save(folder / f"{i}.png")
    (folder / "1.png").write_bytes(b"damage")
    train(run_settings(data__train=(str(folder),)), epath.Path(tmp_path / "run"))
    assert [count["data/damaged"] for count in counted] == [1.0] * len(counted) and counted
    assert counted[-1]["data/smaller_than_crop"] == 2 and counted[-1]["data/seen"] == 3
    out = capsys.readouterr().out
    assert out.count(f"skipped {folder}/1.png: cannot be read as an image") == 1


def test_bad_steps_are_left_out_until_too_many_come_in_a_row():
    steps = [
        {"loss": 1.0, "ffl": 2.0, "skipped": 0.0, "skipped_in_row": 0.0},
        {"loss": np.nan, "ffl": np.inf, "skipped": 1.0, "skipped_in_row": 1.0},
        {"loss": np.nan, "ffl": 1.0, "skipped": 2.0, "skipped_in_row": 2.0},
        {"loss": 3.0, "ffl": 3.0, "skipped": 2.0, "skipped_in_row": 0.0},
    ]
    expected = {"loss": 2.0, "ffl": 2.5, "skipped": 2.0, "skipped_in_row": 0.0}
    assert check_and_average(steps, last_step=42, max_nonfinite=2) == expected
    with pytest.raises(
        UserError,
        match=r"2 steps in a row were not finite, up to step 41 \(loss\); lower optimizer.learning",
    ):
        check_and_average(steps, last_step=42, max_nonfinite=1)
    assert np.isnan(check_and_average(steps[1:3], last_step=42, max_nonfinite=2)["loss"])


def test_progress_tells_how_far_how_fast_and_how_long():
    values = {"loss": 1.2345678, "psnr": 20.0, "unshown": 1.0}
    values |= {"speed/images_per_second": 2.0, "speed/waiting_for_data": 0.25}
    line = Progress(first_step=10, last_step=30, batch_size=4).line(20, values)
    assert line.startswith("step 20/30  2.0 images/s") and line.endswith("loss 1.235  psnr 20")
    texts = {0.4: "0 s", 59.0: "59 s", 185.0: "3 min 05 s", 7260.0: "2 h 01 min", 9e4: "1 d 01 h"}
    assert {seconds: duration(seconds) for seconds in texts} == texts


@pytest.mark.parametrize(
    ("idle", "clock", "share"), [(True, [0, 1, 7, 10], 0.6), (False, [0, 1, 10], 0.0)]
)
def test_reading_counts_as_waiting_only_where_the_device_had_nothing_to_do(
    idle, clock, share, monkeypatch
):
    times = iter(clock)
    monkeypatch.setattr("fa_hific_jax.training.progress.time.monotonic", lambda: next(times))
    progress = Progress(0, 100, batch_size=4)
    batch = np.zeros(1)
    assert progress.fetch(iter([batch]), mock.Mock(is_ready=lambda: idle)) is batch
    speed = {"speed/images_per_second": 2.0, "speed/waiting_for_data": share}
    assert progress.measure(5) == pytest.approx(speed)
