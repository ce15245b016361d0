"""One run trains in a folder at a time, and a run that has ended keeps nobody out."""

import json
import os
import subprocess
import sys
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
def hurried(monkeypatch):
    """A refusal comes at once, and seconds of watching are milliseconds."""
    monkeypatch.setattr(lock, "GRACE", -1.0)
    for name in ("RENEWAL", "SILENCE"):
        monkeypatch.setattr(lock, name, getattr(lock, name) / 1000)


def written_by(workdir, **changes) -> str:
    """Leaves the lock of a process that differs from this one in some respect."""
    text = json.dumps(this_process()._replace(**changes)._asdict())
    (workdir / lock.FILE).write_text(text)
    return text


def took_after(workdir) -> float:
    """Seconds until the lock could be taken."""
    attempted, begun = Lock(workdir), time.monotonic()
    while not attempted.attempt():
        assert time.monotonic() - begun < 60, "the lock stays"
        time.sleep(0.01)
    attempted.release()
    return time.monotonic() - begun


def test_second_run_is_refused_and_told_of_the_first(workdir):
    told = rf"{workdir} is in use: process {os.getpid()} on \S+ has trained there since 20.*workdir"
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
    monkeypatch.setattr(lock, "SILENCE", 60.0)
    assert took_after(workdir) < 3  # although nobody has asked for the exit code yet
    assert "ended without releasing" in capsys.readouterr().err
    process.communicate()


@pytest.mark.parametrize("flocks", [True, False])
@pytest.mark.parametrize("found", ["here", "far", "", '{"token": "a"}', "[]", b"\xff"])
def test_lock_without_a_living_holder_is_taken_over(found, flocks, workdir, monkeypatch):
    """Silence proves an end where neither a flock nor the machine does."""
    if not flocks:
        monkeypatch.setattr(lock.fcntl, "flock", no_flocks)
    if found in ("here", "far"):
        written_by(workdir, **({} if found == "here" else {"boot": "another", "host": "far"}))
    else:
        (workdir / lock.FILE).write_bytes(found if isinstance(found, bytes) else found.encode())
    at_once = not found or (found == "here" and flocks)
    assert (took_after(workdir) < lock.SILENCE * 0.9) == at_once


def no_flocks(*_):
    raise OSError(95, "Operation not supported")


def test_renewed_lock_of_another_machine_is_refused_as_soon_as_it_is_renewed(workdir):
    written_by(workdir, boot="another", host="far")
    waiting = Lock(workdir)
    assert not waiting.attempt()
    os.utime(workdir / lock.FILE, (1e9, 1e9))  # by whatever clock
    with pytest.raises(UserError, match=r"is in use: process \d+ on far has trained there since"):
        waiting.attempt()


def test_holder_renews_its_lock(workdir):
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
    written_by(workdir)
    contenders = [Lock(workdir) for _ in range(8)]

    def takes(contender) -> bool:
        try:
            while not contender.attempt():
                time.sleep(0.001)
        except UserError:
            return False
        return True

    with ThreadPool(8) as pool:
        taken = pool.map(takes, contenders, chunksize=1)
    assert sum(taken) == 1
    contenders[taken.index(True)].check()
    assert [path.name for path in workdir.iterdir()] == [lock.FILE]


def test_bucket_is_locked_by_the_last_writer(workdir):
    first, second = Lock(workdir), Lock(workdir)
    first._local = second._local = False
    assert first.attempt()
    assert not second.attempt()  # watched: whether it runs cannot be told from here
    (workdir / lock.FILE).write_text(json.dumps(first._me._replace(pid=1)._asdict()))
    with pytest.raises(UserError, match="is in use: process 1 on"):
        second.attempt()
    first.release()
    assert list(workdir.iterdir()) == []
