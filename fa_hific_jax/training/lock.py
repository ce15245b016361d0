"""The lock that admits one training run to a folder at a time.

Two runs in one folder would delete each other's unfinished checkpoints. `workdir/trainer.lock`
names the process that trains there, which keeps a flock on the file. The flock ends with the
process and shows on the whole machine, whatever the container, so there the lock of a process that
has ended is taken over at once. A thread of the process also renews the file's modification time.
On another machine, or without flocks, a lock is taken over once it has not been renewed for
`SILENCE`, by the clock of the process that waits.

Where no flock protects the file, as in a bucket (gs://), the process that writes last has the lock.
The other one ends at its next check.
"""

import contextlib
import datetime
import fcntl
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from fa_hific_jax.errors import UserError
from fa_hific_jax.training.processes import leads, warn

FILE = "trainer.lock"
RENEWAL = 10.0  # seconds between two renewals by the holder
SILENCE = 120.0  # seconds without a renewal after which a holder out of sight is given up
GRACE = 3.0  # seconds that a process that was just killed may take to end


@contextlib.contextmanager
def hold(workdir: epath.Path) -> Iterator[Callable[[], None]]:
    """Holds the lock of `workdir`; gives a function that raises once another run has taken it.

    Process 0 of a distributed run takes the lock on behalf of all its processes, each of which must
    call this. While the lock of another machine is watched, this waits. A UserError if another run
    trains in `workdir`.
    """
    lock = Lock(workdir)
    while not _all_hear_of(lock.attempt):
        time.sleep(1.0)
    if not leads():
        yield lambda: None
        return
    ended = threading.Event()
    renewal = threading.Thread(target=lock.renew_until, args=(ended,), daemon=True)
    renewal.start()
    try:
        yield lock.check
    finally:
        ended.set()
        renewal.join(RENEWAL)
        lock.release()


def _all_hear_of(attempt: Callable[[], bool]) -> bool:
    """Returns in every process the result of process 0's attempt; raises in all if it does."""
    taken, failure = False, None
    if leads():
        try:
            taken = attempt()
        except Exception as error:  # The other processes must hear of it, or they wait forever.
            failure = error
    said = np.asarray([taken, failure is not None])
    taken, failed = multihost_utils.broadcast_one_to_all(said).tolist()
    if failed:
        raise failure or UserError("process 0 of this run cannot train there: see its message")
    return taken


class Holder(NamedTuple):
    """The process that holds a lock, as the lock file describes it."""

    token: str  # random
    host: str
    pid: int
    since: str
    boot: str  # identifies the running kernel, which all containers of a machine share

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this_process() -> Holder:
    """Returns a description of this process, with a new random token."""
    host, boot = platform.node(), Path("/proc/sys/kernel/random/boot_id")
    now = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
    kernel = boot.read_text().strip() if boot.exists() else host
    return Holder(secrets.token_hex(8), host, os.getpid(), now, kernel)


class _Seen(NamedTuple):
    """A lock file, whose content is empty if there is none."""

    content: bytes
    time: int
    holder: Holder | None


class Lock:
    """The lock file of one folder, for one process that wants to train there."""

    def __init__(self, workdir: epath.Path):
        self._workdir, self._path = workdir, workdir / FILE
        self._local = "://" not in os.fspath(workdir)
        self._me = this_process()
        self._file: int | None = None  # open while held: a flock ends with the process
        self._begun = time.monotonic()
        self._watched: tuple[_Seen, float] | None = None  # what was seen first, and when

    def attempt(self) -> bool:
        """Tries once to take the lock; False asks the caller to try again after a moment.

        A UserError if a running process holds it.
        """
        flocked = self._flock() if self._local else None
        seen = self._look()
        holder = seen.holder
        if flocked is False:
            alive = True
        elif not seen.content or (flocked and holder and holder.boot == self._me.boot):
            alive = False
        else:
            alive = self._is_renewed(seen)
        if alive is False:
            if seen.content:
                warn(f"{holder or 'a run'} ended without releasing {self._path}: taking it over")
            self._write()
            return True
        self._close()
        if alive and seen.content and time.monotonic() - self._begun > GRACE:
            since = f"{holder} has trained there since {holder.since}" if holder else "another run"
            raise UserError(
                f"{self._workdir} is in use: {since}. Stop that run or wait for its end, or name "
                "another --workdir"
            )
        return False

    def check(self) -> None:
        """Raises a UserError where another run has taken the folder over.

        That happens to a process that was suspended, or cut off from the file system, for minutes.
        A lock file that somebody removed is made again.
        """
        try:
            seen = self._look()
            if not seen.content:
                self.attempt()
        except OSError:
            return  # The next checkpoint tells whether the folder can be written.
        if seen.holder and seen.holder.token != self._me.token:
            raise UserError(
                f"{self._workdir} was taken over by {seen.holder} while this run did not respond. "
                "This run ends here and leaves the folder to that one"
            )

    def renew_until(self, ended: threading.Event) -> None:
        """Renews the lock every `RENEWAL` seconds, as long as it is this process's own."""
        while not ended.wait(RENEWAL):
            with contextlib.suppress(OSError):
                if self._is_mine():
                    os.utime(self._path) if self._local else self._write()

    def release(self) -> None:
        """Removes the lock, unless another run has taken it over."""
        with contextlib.suppress(OSError):
            if self._is_mine():
                self._path.unlink()
        self._close()

    def _flock(self) -> bool | None:
        """Opens the lock file with a flock; returns None where there are no flocks.

        False means that another process has the flock, or has just removed the file.
        """
        self._close()
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(self._file), os.stat(self._path))
        except (BlockingIOError, FileNotFoundError):
            return False
        except OSError:
            return None

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self) -> None:
        self._path.write_text(json.dumps(self._me._asdict()))

    def _is_renewed(self, seen: _Seen) -> bool | None:
        """Returns True once the lock is renewed, False after `SILENCE`, None before."""
        now = time.monotonic()
        if self._watched is None:
            self._watched = (seen, now)
            warn(f"{self._path} names {seen.holder or 'a run'}: watching whether it goes on")
        first, start = self._watched
        if seen != first:
            return True
        return False if now - start >= SILENCE else None

    def _look(self) -> _Seen:
        content, changed, holder = b"", 0, None
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError):  # absent or damaged
            changed = self._path.stat().mtime
            content = self._path.read_bytes()
            holder = Holder(**json.loads(content))
        return _Seen(content, changed, holder)

    def _is_mine(self) -> bool:
        holder = self._look().holder
        return holder is not None and holder.token == self._me.token
