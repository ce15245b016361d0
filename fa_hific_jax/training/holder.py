"""The process that trains in a folder: how a lock file names it, and whether it still runs."""

import dataclasses
import datetime
import fcntl
import json
import os
import platform
import secrets


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that holds a lock, as the lock file describes it.

    `boot` identifies the running kernel, which all containers of a machine share. `started` is the
    start time of the process, which tells it from a later one with the same number. `flocked` says
    that the process keeps a flock on the lock file, which ends with it.
    """

    token: str
    host: str
    pid: int
    since: str
    boot: str
    pid_namespace: str
    started: str
    flocked: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def text(self, flocked: bool = False) -> str:
        """Contents of the lock file."""
        return json.dumps(dataclasses.asdict(self) | {"flocked": flocked})


def this_process() -> Holder:
    """Returns a description of this process, with a new random token."""
    return Holder(
        token=secrets.token_hex(8),
        host=platform.node(),
        pid=os.getpid(),
        since=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC",
        boot=_contents("/proc/sys/kernel/random/boot_id") or platform.node(),
        pid_namespace=_pid_namespace(),
        started=_start_time(os.getpid()),
    )


def parse(text: str) -> Holder | None:
    """Returns the holder that a lock file names, None where the file is empty or damaged."""
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return None


def runs_here(holder: Holder, lock_file: str) -> bool | None:
    """Returns whether the holder runs on this machine, None where this process cannot tell.

    Processes of other containers are invisible, but a flock reaches across containers. A flock that
    is held although the process has ended may belong to a child that inherited it: None.
    """
    me = this_process()
    if holder.boot != me.boot:
        return None
    visible = bool(holder.started) and holder.pid_namespace == me.pid_namespace
    if visible and _start_time(holder.pid) == holder.started:
        return True
    if not holder.flocked:
        return False if visible else None
    if _flock_is_free(lock_file):
        return False
    return None if visible else True


def flock(file: int) -> bool:
    """Takes an exclusive flock; returns False where it is taken or the file system has none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _flock_is_free(path: str) -> bool:
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return flock(file)
    finally:
        os.close(file)


def _start_time(pid: int) -> str:
    """Returns the start time of a process in ticks since the boot, "" where it has ended."""
    state, *fields = _contents(f"/proc/{pid}/stat").rpartition(")")[2].split() or [""]
    ended = state in ("", "Z", "X")  # "Z": killed, but its parent has not asked for the exit code
    return "" if ended else fields[18]


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _contents(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
