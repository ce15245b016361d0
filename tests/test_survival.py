"""What a run survives: being stopped, killed, damaged checkpoints, full and forbidden disks."""

import errno
import functools
import itertools
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
from fa_hific_jax.data.pipeline import Batches
from fa_hific_jax.errors import UserError
from fa_hific_jax.training import logs, loop, record
from fa_hific_jax.training.loop import train
from fa_hific_jax.training.resume import CheckpointTimer, resume, save
from fa_hific_jax.training.state import create
from fa_hific_jax.training.stopping import naming_disk_errors

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("standard_promotion")]

PLAIN = {"loss__gan": 0.0, "loss__dsl": 0.0, "model__fcm_width": 0}
SETTINGS = tiny_settings(**PLAIN)


@pytest.fixture(autouse=True)
def no_events(monkeypatch):
    """TensorBoard's writer takes seconds to load."""
    monkeypatch.setattr(logs, "_event_writer", mock.MagicMock())


def assert_same(ours, theirs):
    for our, their in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(our, their)


@pytest.fixture(scope="module")
def first_state():
    return jax.jit(functools.partial(create, SETTINGS))(jax.random.key(0))


@pytest.fixture(scope="module")
def written(tmp_path_factory, first_state):
    """A folder with checkpoints of steps 2 and 3, and the state of each."""
    workdir = epath.Path(tmp_path_factory.mktemp("written"))
    checkpoints = Checkpoints(workdir, kept=None)
    states = {}
    for step in (2, 3):
        shifted = jax.tree.map(lambda leaf, n=step: leaf + leaf.dtype.type(n), first_state)
        states[step] = shifted.replace(step=np.int32(step))
        save(states[step], SETTINGS, checkpoints)
    checkpoints.close()
    return workdir, states


@pytest.fixture
def run(written, tmp_path):
    """A copy of the folder, and the states."""
    shutil.copytree(written[0], tmp_path / "run")
    return epath.Path(tmp_path / "run"), written[1]


@pytest.fixture
def resumed(first_state):
    """Resumes in a folder; returns the state and the steps of the checkpoints that remain."""

    def resumed(workdir):
        checkpoints = Checkpoints(workdir, kept=3, writer=True)
        state = resume(first_state, SETTINGS, checkpoints)
        steps = checkpoints.steps()
        checkpoints.close()
        return state, steps

    return resumed


def cut(folder: Path, item: str, share: float = 0.5) -> None:
    """Keeps a part of each file with the values of arrays."""
    for path in (folder / item).rglob("d/*"):
        os.truncate(path, int(share * path.stat().st_size))


DAMAGES = {
    "array files truncated": lambda folder: cut(folder, "autoencoder"),
    "index gone": lambda folder: (folder / "autoencoder" / "manifest.ocdbt").unlink(),
    "metadata gone": lambda folder: (folder / "training" / "_METADATA").unlink(),
    "item gone": lambda folder: shutil.rmtree(folder / "training"),
    "settings cut off": lambda folder: os.truncate(folder / "settings" / "metadata", 10),
    "all gone": lambda folder: [shutil.rmtree(p) for p in folder.iterdir() if p.is_dir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_named_and_the_one_before_it_used(damage, run, resumed, capsys):
    workdir, states = run
    DAMAGES[damage](Path(workdir) / "checkpoints" / "3")
    state, steps = resumed(workdir)
    said = capsys.readouterr().err
    assert_same(state, states[2])
    kind = "holds no training state" if damage == "item gone" else "is damaged ("
    assert said.startswith(f"warning: the checkpoint {workdir}/checkpoints/3 {kind}")
    assert said.endswith(f"now in {workdir}/damaged_checkpoints/3\n") and said.count("\n") == 1
    assert steps == [2]


def test_checkpoints_of_which_none_can_be_read_end_run_and_inference_and_stay(run, resumed):
    workdir, _ = run
    for step in ("2", "3"):
        cut(Path(workdir) / "checkpoints" / step, "autoencoder", 0)
    with pytest.raises(UserError, match=r"checkpoints/3 is damaged \(.*restore it from a copy"):
        resumed(workdir)
    with pytest.raises(UserError, match=r"checkpoints/3 is damaged \("):
        load_autoencoder(workdir, SETTINGS)
    assert sorted(os.listdir(workdir / "checkpoints")) == ["2", "3"]


def test_the_newest_and_the_best_checkpoints_stay(tmp_path):
    workdir, small = epath.Path(tmp_path), {"x": np.zeros(1, np.float32)}
    checkpoints = Checkpoints(workdir, kept=2, best="eval/psnr", writer=True)
    for step, score in enumerate([20.0, 22.0, 21.0, 19.0, 18.0], start=1):
        checkpoints.save(step, small, small, SETTINGS, {"eval/psnr": score})
    checkpoints.close()
    reopened = Checkpoints(workdir, kept=2, best="eval/psnr")
    assert (reopened.steps(), reopened.best_step()) == ([2, 4, 5], 2)
    reopened.close()
    assert Checkpoints(workdir, kept=2, best="loss").best_step() is None


def test_full_disk_ends_in_one_sentence_and_the_last_checkpoint_stays(run, resumed, monkeypatch):
    def full_disk(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    workdir, states = run
    checkpoints = Checkpoints(workdir, kept=3, writer=True)
    sentence = (
        r"no checkpoint can be written to .*/checkpoints \(.*No space left on device\): free "
        r"disk space .* it resumes from step 3"
    )
    with monkeypatch.context() as full, pytest.raises(UserError, match=sentence):
        full.setattr(ocp.JsonCheckpointHandler, "async_save", full_disk)
        full.setattr(ocp.JsonCheckpointHandler, "save", full_disk)
        save(states[3].replace(step=np.int32(4)), SETTINGS, checkpoints)
        checkpoints.close()
    assert_same(resumed(workdir)[0], states[3])


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "No space left on device: make room there"),
        (errno.EACCES, "Permission denied: name another --workdir"),
        (errno.EISDIR, "Is a directory: remove what is in its place"),
        (errno.EIO, "Input/output error: name another --workdir"),
    ],
)
def test_disk_that_takes_nothing_is_named(number, expected):
    named = functools.partial(naming_disk_errors, epath.Path("/run"))
    with pytest.raises(UserError, match=f"/run/metrics.jsonl: {expected}"), named():
        raise OSError(number, os.strerror(number), "/run/metrics.jsonl")
    with pytest.raises(UserError, match=f"/run/new: {expected}"), named():
        raise OSError(number, os.strerror(number), "/run/temporary", None, "/run/new")
    with pytest.raises(OSError, match="bad image"), named():  # of another folder: an error as it is
        raise OSError(number, "bad image", "/data/image.png")


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("x", "file", "/x/run: Not a directory: name another"),
        ("x/run", "link", "/x/run: File exists: remove"),
        ("x/run/run.json", "folder", "/x/run/run.json: Is a directory: remove"),
        ("x/run/trainer.lock", "folder", "trainer.lock: Is a directory: remove"),
        ("x/run/checkpoints", "link", "/checkpoints: File exists: remove"),
        ("x/run/checkpoints", "file", "/checkpoints is a file: remove it or name another"),
    ],
)
def test_what_stands_in_the_way_of_a_run_is_named(
    name, kind, expected, first_state, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "initial_state", lambda *_: first_state)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    {"file": path.touch, "folder": path.mkdir, "link": lambda: path.symlink_to("no")}[kind]()
    with pytest.raises(UserError, match=expected):
        train(SETTINGS, epath.Path(tmp_path) / "x" / "run")


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


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    workdir = epath.Path(tmp_path_factory.mktemp("unbroken"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "_event_writer", mock.MagicMock())
        return train(SETTINGS, workdir), workdir


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_asked_to_stop_saves_that_very_step_and_goes_on_as_if_it_had_not(
    number, unbroken, tmp_path, monkeypatch, capsys
):
    workdir, read, reads = epath.Path(tmp_path), Batches.__next__, itertools.count(1)

    def asking(self):
        if next(reads) == 3:  # read while step 2 computes
            os.kill(os.getpid(), number)
        return read(self)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(Batches, "__next__", asking)
        step = int(train(SETTINGS, workdir).step)
    assert 2 <= step <= 3 and signal.getsignal(number) is before
    said = capsys.readouterr().out
    assert f"stopped after step {step} as asked: the same command goes on" in said
    assert Checkpoints(workdir, kept=None).steps()[-1] == step
    assert_same(train(SETTINGS, workdir), unbroken[0])


def reached(process, step: int) -> None:
    """Waits for the report of a step."""
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            return
    pytest.fail(process.stderr.read())


def killed(process) -> None:
    process.kill()
    process.communicate()


def test_a_run_killed_at_any_moment_ends_with_the_bits_of_an_unbroken_one(unbroken, tmp_path):
    process = training_run.start(tmp_path, devices=2, **PLAIN)
    reached(process, 4)
    time.sleep(random.uniform(0, 0.3))
    killed(process)
    code, _, err = training_run.finish(training_run.start(tmp_path, devices=2, **PLAIN))
    assert code == 0 and "ended without releasing" in err
    ours, theirs = (Checkpoints(epath.Path(w), kept=None) for w in (tmp_path, unbroken[1]))
    for item in ("autoencoder", "training"):
        assert_same(*(of.read(6, item, of.contents(6, item)) for of in (ours, theirs)))


@pytest.mark.parametrize("processes", [1, 2])
def test_second_trainer_is_refused_and_the_first_goes_on(processes, tmp_path):
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
    killed(first)


def test_checkpoints_come_by_steps_and_by_the_clock_with_log_lines(monkeypatch):
    config = tiny_settings(
        train__checkpoint_every=10, train__checkpoint_minutes=1.5, train__log_every=4
    ).train
    now = [0.0]
    monkeypatch.setattr("fa_hific_jax.training.resume.time.monotonic", lambda: now[0])
    timer, due = CheckpointTimer(config), []
    for step in range(1, 21):
        now[0] += 20.0
        if timer.due(step):
            due.append(step)
    assert due == [8, 10, 16, 20]


def test_run_json_tells_how_each_start_came_about(tmp_path):
    workdir = epath.Path(tmp_path)
    for first_step in (0, 6):
        record.note_start(workdir, SETTINGS, first_step=first_step)
    start, again = record.read(workdir)["starts"]
    assert (start["first_step"], again["first_step"]) == (0, 6)
    assert start["processes"] == 1 and start["devices"][0] == 2
    assert start["settings"]["train"]["steps"] == 6 and "jax" in start["versions"]
    assert start["git"] is None or len(start["git"]["commit"]) == 40


def test_validation_images_are_measured_and_decide_what_is_best(tmp_path):
    best = {"train__evaluate_every": 3, "train__keep_best": "eval/psnr"}
    workdir = epath.Path(tmp_path)
    train(tiny_settings(**PLAIN, **best, data__evaluation="dead_leaves:2"), workdir)
    reports = logs.read_scalars(workdir)
    seen = {step: values for step, values in reports.items() if "eval/psnr" in values}
    assert set(seen) == {3, 6}
    assert all(5 < values["eval/psnr"] < 40 and values["eval/bpp"] > 0 for values in seen.values())
    checkpoints = Checkpoints(workdir, kept=None, best="eval/psnr")
    assert checkpoints.best_step() == max(seen, key=lambda step: seen[step]["eval/psnr"])
