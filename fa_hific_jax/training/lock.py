"""The lock that admits one training run to a folder at a time.

Two runs in one folder would delete each other's unfinished checkpoints. `workdir/trainer.lock`
names the process that trains there, which keeps a flock on the file. The flock ends with the
process and shows on the whole machine, whatever the container, so there the lock of a process that
has ended is taken over at once. A thread of the process also renews the file's modification time.
On another machine, or without flocks, a lock is taken over after some minutes without a renewal.
Clocks of different machines are never compared.

In a bucket (gs://) no file can be created exclusively. There the process that writes last wins, and
each reads the file again a few seconds after it wrote, as they do wherever flocks prove nothing.
"""

import contextlib
import dataclasses
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

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from fa_hific_jax.errors import UserError
from fa_hific_jax.training.processes import leads, warn

FILE = "trainer.lock"
RENEWAL = 10.0  # seconds between two renewals by the holder
SILENCE = 180.0  # seconds without a renewal after which a holder out of sight is given up
WATCH = 3 * RENEWAL  # shortest watch before that, so that a clock that jumps does no harm
GRACE = 3.0  # seconds that a process that was just killed may take to end
SETTLE = 3.0  # seconds after which a write is read again that no flock protects


@contextlib.contextmanager
def hold(workdir: epath.Path) -> Iterator[Callable[[], None]]:
    """Holds the lock of `workdir`; gives a function that raises once another run has taken it.

    Process 0 of a distributed run takes the lock on behalf of all its processes, each of which must
    call this. While the lock of another machine is watched, this waits.

    Raises:
      UserError: another run trains in `workdir`.
    """
    lock = Lock(workdir) if leads() else None
    while not _agreed(lock):
        time.sleep(1.0)
    if lock is None:
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


def _agreed(lock: "Lock | None") -> bool:
    """Returns in every process whether process 0 has the lock; raises where it is refused."""
    failure, taken = None, False
    if lock is not None:
        try:
            taken = lock.attempt()
        except Exception as error:  # The other processes must hear of it, or they wait forever.
            failure = error
    if jax.process_count() > 1:
        said = np.asarray([taken, failure is not None])
        taken, failed = multihost_utils.broadcast_one_to_all(said).tolist()
        if failed and failure is None:
            raise UserError("process 0 of this run cannot train in --workdir: see its message")
    if failure is not None:
        raise failure
    return bool(taken)


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that holds a lock, as the lock file describes it."""

    token: str  # random
    host: str
    pid: int
    since: str
    boot: str  # identifies the running kernel, which all containers of a machine share
    flocked: bool = False  # True if the process keeps a flock on the lock file

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this_process() -> Holder:
    """Returns a description of this process, with a new random token."""
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Holder(
        token=secrets.token_hex(8),
        host=platform.node(),
        pid=os.getpid(),
        since=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC",
        boot=boot or platform.node(),
    )


class _Seen(NamedTuple):
    """A lock file: its holder (None where it names none), its text and its time."""

    holder: Holder | None
    text: str
    time: float


class Lock:
    """The lock file of one folder, for one process that wants to train there."""

    def __init__(self, workdir: epath.Path):
        self._workdir, self._path = workdir, workdir / FILE
        self._local = "://" not in os.fspath(workdir)
        self._me = this_process()
        self._file: int | None = None  # open while held: a flock ends with the process
        self._begun = time.monotonic()
        self._watched: tuple[_Seen, float, float] | None = None

    def attempt(self) -> bool:
        """Tries once to take the lock; False asks the caller to try again after a moment.

        Raises:
          UserError: a running process holds it.
        """
        if self._create():
            return True
        free = self._open() if self._local else True
        seen = self._look()
        if seen is None or free is None:  # The holder has just released it.
            return False
        holder, flocked = seen.holder, self._me.flocked
        proven = bool(flocked and holder and holder.flocked and holder.boot == self._me.boot)
        ended = proven or (flocked and not seen.text)  # Nobody has come to write it.
        alive = not free or (False if ended else self._is_renewed(seen))
        if alive is False and self._write(sure=proven):
            warn(f"{holder or 'a run'} ended without releasing {self._path}: taking it over")
            return True
        self._close()
        if alive and time.monotonic() - self._begun > GRACE:
            since = f"{holder} has trained there since {holder.since}" if holder else "another run"
            raise UserError(
                f"{self._workdir} is in use: {since}. Stop that run or wait for its end, or name "
                "another --workdir"
            )
        return False

    def check(self) -> None:
        """Raises a UserError where another run has taken the folder over.

        That happens to a process that was suspended, or cut off from the file system, for minutes.
        """
        try:
            seen = self._look()
            if seen is None and not self._create():  # Somebody removed the file.
                seen = self._look()
        except OSError:
            return  # The next checkpoint tells whether the folder can be written.
        holder = seen.holder if seen else None
        if holder is not None and holder.token != self._me.token:
            raise UserError(
                f"{self._workdir} was taken over by {holder} while this run did not respond. This "
                "run ends here and leaves the folder to that one"
            )

    def renew_until(self, ended: threading.Event) -> None:
        """Renews the lock every `RENEWAL` seconds, as long as it is this process's own."""
        while not ended.wait(RENEWAL):
            with contextlib.suppress(OSError):
                if not self._is_mine():
                    continue
                if self._local:
                    os.utime(self._path)  # sets the time by the file system's clock
                else:
                    self._write(sure=True)

    def release(self) -> None:
        """Removes the lock, unless another run has taken it over."""
        with contextlib.suppress(OSError):
            if self._is_mine():
                self._path.unlink()
        self._close()

    def _create(self) -> bool:
        """Creates the lock file; returns False where there is one already."""
        if not self._local:
            return not self._path.exists() and self._write(sure=False)
        try:
            file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        except FileExistsError:
            return False
        try:
            return self._keep(file) and self._write(sure=True)
        except OSError:
            self._path.unlink(missing_ok=True)
            raise

    def _open(self) -> bool | None:
        """Takes the flock of the lock file: False where it is taken, None if the file changed."""
        try:
            file = os.open(self._path, os.O_RDWR)
            if not self._keep(file):
                return False
            return os.path.samestat(os.fstat(file), os.stat(self._path)) or None
        except FileNotFoundError:
            return None

    def _keep(self, file: int) -> bool:
        """Keeps a file open, with a flock where there are any; False if another process has it."""
        self._close()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        except OSError:  # The file system has no flocks.
            self._file = file
        else:
            self._file, self._me = file, dataclasses.replace(self._me, flocked=True)
        return True

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file, self._me = None, dataclasses.replace(self._me, flocked=False)

    def _write(self, sure: bool) -> bool:
        """Writes the lock file; unless `sure`, returns whether no other process does so as well."""
        self._path.write_text(json.dumps(dataclasses.asdict(self._me)))
        if sure:
            return True
        time.sleep(SETTLE)
        return self._is_mine()

    def _is_renewed(self, seen: _Seen) -> bool | None:
        """Returns whether the lock is renewed, None while that is being watched."""
        now = time.monotonic()
        if self._watched is None:
            age = max(self._file_system_time() - seen.time, 0.0)
            self._watched = (seen, age, now)
            who = seen.holder or "no process"
            warn(f"{self._path} names {who}: watching whether that still runs")
        first, age, start = self._watched
        if seen != first:
            return True
        return False if now - start >= WATCH and age + now - start >= SILENCE else None

    def _look(self) -> _Seen | None:
        """Returns the lock file as it is now, None where there is none."""
        if not self._local and not self._path.exists():
            return None
        try:
            # Opening the file makes NFS ask its server for the time of the last renewal.
            text = self._path.read_bytes().decode(errors="replace")
            seconds = os.stat(self._path).st_mtime if self._local else self._path.stat().mtime
        except FileNotFoundError:
            return None
        try:
            return _Seen(Holder(**json.loads(text)), text, float(seconds))
        except (ValueError, TypeError):  # It is empty or damaged.
            return _Seen(None, text, float(seconds))

    def _is_mine(self) -> bool:
        seen = self._look()
        return bool(seen and seen.holder and seen.holder.token == self._me.token)

    def _file_system_time(self) -> float:
        """Returns the time, in seconds since 1970, with which the folder's files are stamped."""
        probe = self._workdir / f"{FILE}.{self._me.token}"
        probe.write_text("")
        try:
            return float(probe.stat().mtime)
        finally:
            probe.unlink()
