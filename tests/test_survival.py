"""What a run survives: being stopped, killed, damaged checkpoints, full and forbidden disks."""

import errno
import functools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import training_run
from etils import epath
from tiny_settings import tiny_settings

from fa_hific_jax.checkpoints import Checkpoints, load_autoencoder
from fa_hific_jax.errors import UserError
from fa_hific_jax.training import logs, loop, record
from fa_hific_jax.training.loop import train
from fa_hific_jax.training.resume import CheckpointTimer, resume, save
from fa_hific_jax.training.state import create
from fa_hific_jax.training.stopping import naming_disk_errors

pytestmark = pytest.mark.long

PLAIN = {"loss__gan": 0.0, "loss__dsl": 0.0, "model__fcm_width": 0}


@pytest.fixture(scope="module", autouse=True)
def standard_promotion():
    """Optax's Adam raises a float to an integer power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(autouse=True)
def no_events(monkeypatch):
    """TensorBoard's writer takes seconds to load."""
    monkeypatch.setattr(logs, "_event_writer", mock.MagicMock())


def leaves(state):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def assert_same(ours, theirs):
    for our, their in zip(leaves(ours), leaves(theirs), strict=True):
        np.testing.assert_array_equal(our, their)


@pytest.fixture(scope="module")
def first_state():
    return jax.jit(functools.partial(create, tiny_settings(**PLAIN)))(jax.random.key(0))


@pytest.fixture(scope="module")
def written(tmp_path_factory, first_state):
    """A folder with checkpoints of steps 2 and 3, and the state of each."""
    workdir = epath.Path(tmp_path_factory.mktemp("written"))
    checkpoints = Checkpoints(workdir, kept=None)
    states = {}
    for step in (2, 3):
        shifted = jax.tree.map(lambda leaf, n=step: leaf + leaf.dtype.type(n), first_state)
        states[step] = shifted.replace(step=np.int32(step))
        save(states[step], tiny_settings(**PLAIN), checkpoints)
    checkpoints.close()
    return workdir, states


@pytest.fixture
def run(written, tmp_path):
    """A copy of it."""
    shutil.copytree(written[0], tmp_path / "run")
    return epath.Path(tmp_path / "run"), written[1]


def resumed(workdir, first_state):
    checkpoints = Checkpoints(workdir, kept=3, writer=True)
    state = resume(first_state, tiny_settings(**PLAIN), checkpoints)
    return state, checkpoints


def values(folder, item) -> list[Path]:
    """Files with the values of arrays."""
    return list((Path(folder) / item).rglob("d/*"))


def halve(path):
    os.truncate(path, path.stat().st_size // 2)


def truncate(folder):
    for path in values(folder, "autoencoder"):
        halve(path)


DAMAGES = {
    "array files truncated": truncate,
    "array files gone": lambda folder: [path.unlink() for path in values(folder, "training")],
    "array files empty": lambda folder: [os.truncate(p, 0) for p in values(folder, "autoencoder")],
    "index gone": lambda folder: (folder / "autoencoder" / "manifest.ocdbt").unlink(),
    "metadata cut off": lambda folder: os.truncate(folder / "training" / "_METADATA", 40),
    "metadata gone": lambda folder: (folder / "training" / "_METADATA").unlink(),
    "item gone": lambda folder: shutil.rmtree(folder / "training"),
    "settings cut off": lambda folder: os.truncate(folder / "settings" / "metadata", 10),
    "settings gone": lambda folder: shutil.rmtree(folder / "settings"),
    "all gone": lambda folder: [shutil.rmtree(p) for p in folder.iterdir() if p.is_dir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_named_and_the_one_before_it_used(damage, run, first_state, capsys):
    workdir, states = run
    DAMAGES[damage](Path(workdir) / "checkpoints" / "3")
    state, checkpoints = resumed(workdir, first_state)
    said = capsys.readouterr().err
    assert_same(state, states[2])
    kind = "holds no training state" if damage == "item gone" else "is damaged ("
    assert said.startswith(f"warning: the checkpoint {workdir}/checkpoints/3 {kind}")
    assert said.endswith(f"now in {workdir}/damaged_checkpoints/3\n") and said.count("\n") == 1
    assert checkpoints.steps() == [2]
    checkpoints.close()


@pytest.mark.slow
def test_no_file_can_be_cut_off_unnoticed_where_its_values_are_needed(run, first_state, tmp_path):
    workdir, states = run
    whole = Path(workdir) / "checkpoints" / "3"
    for path in [*values(whole, "autoencoder"), *values(whole, "training")]:
        shutil.copytree(workdir, tmp_path / "copy")
        halve(tmp_path / "copy" / path.relative_to(workdir))
        state, checkpoints = resumed(epath.Path(tmp_path / "copy"), first_state)
        assert_same(state, states[int(state.step)])
        checkpoints.close()
        shutil.rmtree(tmp_path / "copy")


def test_the_place_of_a_damaged_checkpoint_is_free_again(run, first_state):
    workdir, states = run
    truncate(Path(workdir) / "checkpoints" / "3")
    _, checkpoints = resumed(workdir, first_state)
    save(states[3], tiny_settings(**PLAIN), checkpoints)
    checkpoints.close()
    assert_same(resumed(workdir, first_state)[0], states[3])


def test_checkpoints_of_which_none_can_be_read_end_the_run_and_stay(run, first_state):
    workdir, _ = run
    for step in ("2", "3"):
        truncate(Path(workdir) / "checkpoints" / step)
    with pytest.raises(UserError, match=r"checkpoints/3 is damaged \(.*restore it from a copy"):
        resumed(workdir, first_state)
    assert sorted(os.listdir(workdir / "checkpoints")) == ["2", "3"]


def test_what_inference_reads_of_a_damaged_checkpoint_is_one_sentence(run):
    DAMAGES["array files empty"](Path(run[0]) / "checkpoints" / "3")
    with pytest.raises(UserError, match=r"checkpoints/3 is damaged \("):
        load_autoencoder(run[0], tiny_settings(**PLAIN))


def test_the_newest_and_the_best_checkpoints_stay(tmp_path, first_state):
    workdir = epath.Path(tmp_path)
    checkpoints = Checkpoints(workdir, kept=2, best="eval/psnr", writer=True)
    small = {"x": np.zeros(1, np.float32)}
    for step, score in enumerate([20.0, 22.0, 21.0, 19.0, 18.0], start=1):
        scores = {"eval/psnr": score}
        checkpoints.save(step, small, small, tiny_settings(**PLAIN), scores)
    checkpoints.close()
    reopened = Checkpoints(workdir, kept=2, best="eval/psnr")
    assert (reopened.steps(), reopened.best_step()) == ([2, 4, 5], 2)
    reopened.close()
    assert Checkpoints(workdir, kept=2, best="loss").best_step() is None


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_ends_in_one_sentence_and_the_last_checkpoint_stays(
    run, first_state, monkeypatch
):
    workdir, states = run
    checkpoints = Checkpoints(workdir, kept=3, writer=True)
    monkeypatch.setattr(ocp.JsonCheckpointHandler, "async_save", full_disk)
    monkeypatch.setattr(ocp.JsonCheckpointHandler, "save", full_disk)
    with pytest.raises(
        UserError,
        match=r"no checkpoint can be written to .*/checkpoints \(.*No space left on device\): free "
        r"disk space .* it resumes from step 3",
    ):
        save(states[3].replace(step=np.int32(4)), tiny_settings(**PLAIN), checkpoints)
        checkpoints.close()
    monkeypatch.undo()
    assert_same(resumed(workdir, first_state)[0], states[3])


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "no space left there: make room"),
        (errno.EACCES, "no permission to write there: change its permissions "),
        (errno.EROFS, "its file system is read-only: name another --workdir"),
        (errno.EISDIR, "a folder is in the place of this file: remove it"),
        (errno.EIO, "Input/output error: name another --workdir"),
    ],
)
def test_disk_that_takes_nothing_is_named(number, expected):
    run = epath.Path("/run")
    with (
        pytest.raises(UserError, match=f"/run/metrics.jsonl: {expected}"),
        naming_disk_errors(run),
    ):
        raise OSError(number, os.strerror(number), "/run/metrics.jsonl")
    with pytest.raises(UserError, match=f"/run/new: {expected}"), naming_disk_errors(run):
        raise OSError(number, os.strerror(number), "/run/temporary", None, "/run/new")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda at: at.parent.write_text(""), "/x/run: a part of this path is a file: name"),
        (lambda at: mkdir(at.parent).joinpath("run").symlink_to("no"), "/x/run: a file or a link"),
        (lambda at: mkdir(at / "metrics.jsonl"), "metrics.jsonl: a folder is in the place of"),
        (lambda at: mkdir(at / "run.json"), "/x/run/run.json: a folder is in the place of this"),
        (lambda at: mkdir(at / "trainer.lock"), "trainer.lock: a folder is in the place of this"),
        (lambda at: mkdir(at).joinpath("checkpoints").symlink_to("no"), "/checkpoints: a file or"),
    ],
)
def test_what_stands_in_the_way_of_a_run_is_named(
    made, expected, first_state, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "initial_state", lambda *_: first_state)
    made(tmp_path / "x" / "run")
    with pytest.raises(UserError, match=expected):
        train(tiny_settings(**PLAIN), epath.Path(tmp_path) / "x" / "run")


def mkdir(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_disk_without_room_ends_a_process_with_one_line_and_no_traceback(tmp_path):
    """A real file system of 400 kB, which a mount namespace of its own can have."""
    mounts = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    small = f"mount -t tmpfs -o size=400k none {tmp_path}"
    if subprocess.run([*mounts, small], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount")
    wrapper = [*mounts, f'{small} && exec "$@"', "sh"]
    process = training_run.start(tmp_path / "run", wrapper=wrapper, **PLAIN)
    code, _, err = training_run.finish(process)
    assert code == 2 and err.count("\n") == 1
    assert re.match(r"error: no checkpoint can be .*/checkpoints \(.*free disk space or", err)


def test_other_errors_of_the_system_stay_what_they_are():
    with pytest.raises(OSError, match="bad image"), naming_disk_errors(epath.Path("/run")):
        raise OSError(errno.EACCES, "bad image", "/data/image.png")
    with pytest.raises(OSError, match="too many"), naming_disk_errors(epath.Path("/run")):
        raise OSError(errno.EMFILE, "too many")


def test_folder_without_permission_is_named(tmp_path, monkeypatch):
    def forbidden(path, **_):
        raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))

    monkeypatch.setattr(type(epath.Path(tmp_path)), "mkdir", forbidden)
    with pytest.raises(UserError, match=r"/run: no permission to write there: .*--workdir"):
        train(tiny_settings(**PLAIN), epath.Path(tmp_path) / "run")


def test_file_in_place_of_the_checkpoints_is_named(tmp_path):
    (tmp_path / "checkpoints").write_text("no folder")
    with pytest.raises(UserError, match=r"/checkpoints is a file: remove it or name another"):
        Checkpoints(epath.Path(tmp_path), kept=None)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    workdir = epath.Path(tmp_path_factory.mktemp("unbroken"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "_event_writer", mock.MagicMock())
        fetched, real = [], jax.device_get
        patch.setattr(jax, "device_get", lambda tree: fetched.append(tree) or real(tree))
        return train(tiny_settings(**PLAIN), workdir), workdir, fetched


def test_metrics_are_fetched_for_reports_alone(unbroken):
    fetched = [values for values in unbroken[2] if isinstance(values, list)]
    assert fetched and fetched == unbroken[2]
    steps_of_reports = [2, 1, 1, 2]  # at 2, 3 (a checkpoint), 4 and 6
    assert [len(values) for values in fetched] == [
        count for count in steps_of_reports for _ in range(len(fetched) // 4)
    ]


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_run_asked_to_stop_saves_that_very_step_and_goes_on_as_if_it_had_not(
    number, unbroken, tmp_path, monkeypatch, capsys
):
    workdir, real = epath.Path(tmp_path), loop.train_batches

    def batches(*args, **kwargs):
        batches = real(*args, **kwargs)
        following = iter(range(1, 100))
        get = type(batches).__next__

        class Asking(type(batches)):
            def __next__(self):
                if next(following) == 3:  # read while step 2 computes
                    os.kill(os.getpid(), number)
                return get(self)

        batches.__class__ = Asking
        return batches

    monkeypatch.setattr(loop, "train_batches", batches)
    before = signal.getsignal(number)
    stopped = train(tiny_settings(**PLAIN), workdir)
    assert signal.getsignal(number) is before
    step = int(stopped.step)
    assert 2 <= step <= 3
    assert (
        f"stopped after step {step} as asked: the same command goes on" in capsys.readouterr().out
    )
    assert Checkpoints(workdir, kept=None).latest_step() == step
    monkeypatch.setattr(loop, "train_batches", real)
    assert_same(train(tiny_settings(**PLAIN), workdir), unbroken[0])


def test_checkpoints_come_by_steps_and_by_the_clock_with_log_lines(monkeypatch):
    config = tiny_settings(
        train__checkpoint_every=10, train__checkpoint_minutes=1.5, train__log_every=4
    ).train
    now = [0.0]
    monkeypatch.setattr("fa_hific_jax.training.resume.time.monotonic", lambda: now[0])
    timer, written = CheckpointTimer(config), []
    for step in range(1, 21):
        now[0] += 20.0
        if timer.due(step):
            written.append(step)
    assert written == [8, 10, 16, 20]


def test_run_json_tells_how_each_start_came_about(unbroken):
    workdir = unbroken[1]
    (start, *_) = record.read(workdir)["starts"]
    assert start["first_step"] == 0 and start["processes"] == 1 and start["devices"][0] == 2
    assert start["settings"]["train"]["steps"] == 6
    assert {"fa-hific-jax", "python", "jax", "flax", "orbax-checkpoint"} <= set(start["versions"])
    assert start["git"] is None or len(start["git"]["commit"]) == 40
    record.note_start(workdir, tiny_settings(**PLAIN), first_step=6)
    assert [start["first_step"] for start in record.read(workdir)["starts"]] == [0, 6]


def test_validation_images_are_measured_and_decide_what_is_best(tmp_path):
    settings = tiny_settings(
        **PLAIN,
        train__evaluate_every=3,
        train__keep_best="eval/psnr",
        data__evaluation="dead_leaves:2",
    )
    train(settings, epath.Path(tmp_path))
    reports = logs.read_scalars(epath.Path(tmp_path))
    seen = {step: values for step, values in reports.items() if "eval/psnr" in values}
    assert set(seen) == {3, 6}
    assert all(5 < values["eval/psnr"] < 40 and values["eval/bpp"] > 0 for values in seen.values())
    checkpoints = Checkpoints(epath.Path(tmp_path), kept=None, best="eval/psnr")
    assert checkpoints.best_step() == max(seen, key=lambda step: seen[step]["eval/psnr"])


def killed_once(workdir, after: str, **overrides) -> None:
    """Starts a run and ends it without warning when it prints `after`."""
    process = training_run.start(workdir, devices=2, **overrides)
    for line in process.stdout:
        if line.startswith(after):
            process.kill()
    process.communicate()


def test_a_run_killed_at_once_ends_with_the_bits_of_an_unbroken_one(unbroken, tmp_path):
    killed_once(tmp_path, "step 4/", **PLAIN)
    code, _, err = training_run.finish(training_run.start(tmp_path, devices=2, **PLAIN))
    assert code == 0, err
    assert_same(final(tmp_path), final(unbroken[1]))


@pytest.mark.parametrize("processes", [1, 2])
def test_second_trainer_is_refused_and_the_first_goes_on(processes, unbroken, tmp_path):
    endless = PLAIN | {"train__steps": 1_000_000, "train__log_every": 1}
    workdir = tmp_path / "runs" / "a [1]"
    first = training_run.start(workdir, devices=2, **endless)
    reached(first, 4)
    second = training_run.start_several(workdir, processes, 2 // processes, **endless)
    for process, expected in zip(second, ("is in use: process", "process 0 of this"), strict=False):
        code, out, err = training_run.finish(process)
        assert code == 2 and expected in err and "step" not in out
    assert f"process {first.pid} on " in err or processes == 2
    reached(first, 10)
    first.kill()
    code, _, err = training_run.finish(training_run.start(workdir, devices=2, **PLAIN))
    assert code == 0 and "ended without releasing" in err
    assert not (workdir / "trainer.lock").exists()


def reached(process, step: int) -> None:
    """Waits for the report of a step."""
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            return
    pytest.fail(process.stderr.read())


def final(workdir):
    """Everything that the last checkpoint holds."""
    checkpoints = Checkpoints(epath.Path(workdir), kept=None)
    step = checkpoints.latest_step()
    return {
        item: checkpoints.read(step, item, checkpoints.contents(step, item))
        for item in ("autoencoder", "training")
    }


@pytest.mark.slow
def test_five_kills_at_random_leave_no_trace(tmp_path):
    often = {"train__steps": 60, "train__checkpoint_every": 7, "train__log_every": 1}
    code, _, err = training_run.finish(training_run.start(tmp_path / "whole", **often))
    assert code == 0, err
    steps = sorted(random.Random(0).sample(range(3, 58), 5))
    for step in steps:
        process = training_run.start(tmp_path / "killed", **often)
        for line in process.stdout:
            if line.startswith(f"step {step}/"):
                time.sleep(random.Random(step).uniform(0, 0.3))
                process.kill()
        process.communicate()
    code, _, err = training_run.finish(training_run.start(tmp_path / "killed", **often))
    assert code == 0, err
    assert_same(final(tmp_path / "killed"), final(tmp_path / "whole"))
    starts = json.loads((tmp_path / "killed" / "run.json").read_text())["starts"]
    assert len(starts) == 6 and starts[-1]["first_step"] > 0


@pytest.mark.slow
def test_sigterm_to_a_process_ends_it_in_good_order_within_30_seconds(tmp_path):
    process = training_run.start(tmp_path, train__steps=1_000_000)
    for line in process.stdout:
        if line.startswith("step 4/"):
            break
    process.terminate()
    begun = time.monotonic()
    code, out, err = training_run.finish(process)
    assert code == 0, err
    assert time.monotonic() - begun < 30
    step = int(out.rpartition("stopped after step ")[2].split()[0])
    assert Checkpoints(epath.Path(tmp_path), kept=None).latest_step() == step
