"""The process that trains in a folder: how a lock file names it, and whether it still runs."""

import dataclasses
import datetime
import fcntl
import json
import os
import platform
import secrets
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that holds a lock, as the lock file describes it.

    `boot` identifies the running kernel, which all containers of a machine share. `flocked` says
    that the process keeps a flock on the lock file, which ends with it.
    """

    token: str
    host: str
    pid: int
    since: str
    boot: str
    flocked: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def text(self, flocked: bool = False) -> str:
        """Returns the content of the lock file."""
        return json.dumps(dataclasses.asdict(self) | {"flocked": flocked})


def this_process() -> Holder:
    """Returns a description of this process, with a new random token."""
    return Holder(
        token=secrets.token_hex(8),
        host=platform.node(),
        pid=os.getpid(),
        since=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC",
        boot=_boot(),
    )


def parse(text: str) -> Holder | None:
    """Returns the holder that a lock file names, None where the file is empty or damaged."""
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return None


def runs_here(holder: Holder, lock_file: str) -> bool | None:
    """Returns True if the holder runs on this machine, None where this process cannot tell.

    A flock reaches across the containers of a machine.
    """
    if holder.boot != _boot() or not holder.flocked:
        return None
    try:
        file = os.open(lock_file, os.O_RDWR)
    except OSError:
        return None
    try:
        return not flock(file)
    finally:
        os.close(file)


def flock(file: int) -> bool:
    """Takes an exclusive flock; returns False where it is taken or the file system has none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()
