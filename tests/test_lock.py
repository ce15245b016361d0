"""One run trains in a folder at a time, and a run that has ended keeps nobody out."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest
from etils import epath

from fa_hific_jax.errors import UserError
from fa_hific_jax.training import lock
from fa_hific_jax.training.lock import Lock, hold, this_process

ROOT = Path(__file__).resolve().parents[1]
HOLDING = """
import sys, time
from etils import epath
from fa_hific_jax.training.lock import hold
with hold(epath.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def workdir(tmp_path):
    return epath.Path(tmp_path)


@pytest.fixture(autouse=True)
def no_grace(monkeypatch):
    """A refusal comes at once."""
    monkeypatch.setattr(lock, "GRACE", -1.0)


@pytest.fixture
def hurried(monkeypatch):
    """Seconds of watching as milliseconds."""
    for name in ("RENEWAL", "SILENCE", "WATCH", "SETTLE"):
        monkeypatch.setattr(lock, name, getattr(lock, name) / 1000)


def written_by(workdir, **changes) -> str:
    """Leaves the lock of a process that differs from this one in some respect."""
    text = json.dumps(dataclasses.asdict(dataclasses.replace(this_process(), **changes)))
    (workdir / lock.FILE).write_text(text)
    return text


def took_after(workdir, seconds=60.0) -> float:
    """Seconds until the lock could be taken."""
    attempted, begun = Lock(workdir), time.monotonic()
    while not attempted.attempt():
        assert time.monotonic() - begun < seconds, "the lock stays"
        time.sleep(0.01)
    attempted.release()
    return time.monotonic() - begun


def test_second_run_is_refused_and_told_of_the_first(workdir):
    told = (
        rf"{workdir} is in use: process {os.getpid()} on {lock.platform.node()} has trained "
        r"there since 20\S+ \S+ UTC\. Stop that run or .*--workdir"
    )
    with hold(workdir):
        text = (workdir / lock.FILE).read_text()
        with pytest.raises(UserError, match=told), hold(workdir):
            pass
        assert (workdir / lock.FILE).read_text() == text
    assert list(workdir.iterdir()) == []
    with hold(workdir):
        pass


@pytest.mark.parametrize("wrapper", [[], ["unshare", "--pid", "--fork", "--mount-proc"]])
def test_killed_process_is_known_at_once_and_a_running_one_too(
    wrapper, workdir, capsys, monkeypatch
):
    """The second process cannot be seen from here: it runs as in a container."""
    if wrapper and subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right to make process-id namespaces")
    process = subprocess.Popen(
        [*wrapper, sys.executable, "-c", HOLDING, str(workdir)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=r"is in use: process \d+ on "):
        Lock(workdir).attempt()
    os.killpg(process.pid, 9)
    monkeypatch.setattr(lock, "GRACE", 3.0)
    assert took_after(workdir) < 3  # although nobody has asked for the exit code yet
    assert "ended without releasing" in capsys.readouterr().err
    process.communicate()


def test_lock_whose_flock_nobody_holds_is_taken_at_once(workdir, monkeypatch):
    monkeypatch.setattr(lock, "SETTLE", 0.01)
    written_by(workdir, flocked=True)
    assert took_after(workdir) < 1
    (workdir / lock.FILE).write_text("")  # of a process that was killed before it could write
    assert took_after(workdir) < 1


@pytest.mark.parametrize("content", ['{"token": "a"}', "[]", "of another"])
def test_lock_without_a_name_or_of_another_machine_is_taken_over_after_silence(
    content, workdir, hurried
):
    if content == "of another":
        written_by(workdir, boot="another", host="far")
    else:
        (workdir / lock.FILE).write_text(content)
    assert took_after(workdir) > lock.SILENCE * 0.9


def test_old_lock_of_another_machine_is_still_watched_for_a_while(workdir, hurried):
    written_by(workdir, boot="another", host="far")
    os.utime(workdir / lock.FILE, (1e9, 1e9))
    assert lock.WATCH * 0.9 < took_after(workdir) < lock.SILENCE


def test_renewed_lock_of_another_machine_is_refused_as_soon_as_it_is_renewed(workdir, hurried):
    written_by(workdir, boot="another", host="far")
    waiting = Lock(workdir)
    assert not waiting.attempt()
    os.utime(workdir / lock.FILE, (1e9, 1e9))  # by whatever clock
    with pytest.raises(UserError, match=r"is in use: process \d+ on far has trained there since"):
        waiting.attempt()


def test_holder_renews_its_lock(workdir, hurried):
    with hold(workdir):
        os.utime(workdir / lock.FILE, (1e9, 1e9))
        deadline = time.monotonic() + 5
        while os.stat(workdir / lock.FILE).st_mtime == 1e9:
            assert time.monotonic() < deadline, "not renewed"
            time.sleep(0.02)


def test_run_that_was_taken_over_stops_and_leaves_the_lock_of_the_other(workdir):
    with hold(workdir) as check:
        check()
        text = written_by(workdir, host="far")
        with pytest.raises(UserError, match=r"was taken over by process \d+ on far while this run"):
            check()
    assert (workdir / lock.FILE).read_text() == text


def test_lock_that_somebody_removed_is_made_again(workdir):
    with hold(workdir) as check:
        (workdir / lock.FILE).unlink()
        check()
        with pytest.raises(UserError, match="is in use"):
            Lock(workdir).attempt()


def test_of_many_that_find_a_stale_lock_one_takes_it(workdir):
    written_by(workdir, flocked=True)
    taken, refused = [], []
    gate = threading.Barrier(8)

    def contend():
        contender = Lock(workdir)
        gate.wait()
        try:
            while not contender.attempt():
                time.sleep(0.001)
            taken.append(contender)
        except UserError:
            refused.append(contender)

    with ThreadPool(8) as pool:
        pool.map(lambda _: contend(), range(8), chunksize=1)
    assert len(taken) == 1 and len(refused) == 7
    taken[0].check()
    assert [path.name for path in workdir.iterdir()] == [lock.FILE]


def test_bucket_is_locked_by_the_last_writer(workdir, monkeypatch):
    monkeypatch.setattr(lock, "SETTLE", 0.05)
    first, second = Lock(workdir), Lock(workdir)
    first._local = second._local = False
    assert first.attempt()
    assert not second.attempt()  # watched: whether it runs cannot be told from here
    (workdir / lock.FILE).write_text(json.dumps(dataclasses.asdict(first._me) | {"pid": 1}))
    with pytest.raises(UserError, match="is in use: process 1 on"):
        second.attempt()
    first.release()
    assert list(workdir.iterdir()) == []
