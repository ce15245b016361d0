"""Early ends of a run: it is asked to stop, or its folder cannot be written."""

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Iterator

import jax
from etils import epath
from jax.experimental import multihost_utils

from fa_hific_jax.errors import UserError

_PERMISSION = "no permission to write there: change its permissions or name another --workdir"
_REASONS = {
    errno.ENOSPC: "no space left there: make room",
    errno.EDQUOT: "the disk quota is used up: make room",
    errno.EFBIG: "a file may not grow further there: raise the limit of file sizes",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: "its file system is read-only: name another --workdir",
    errno.ENOTDIR: "a part of this path is a file: name another --workdir",
    errno.EEXIST: "a file or a link to nothing is in its place: remove it",
    errno.EISDIR: "a folder is in the place of this file: remove it",
    errno.ENOENT: "the folder is gone: do not move or remove it during training",
    errno.ENAMETOOLONG: "the name is too long: name a shorter --workdir",
}
_OF_ANY_FILE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class Stop:
    """Context that notes requests to stop the run: SIGTERM, SIGHUP and Ctrl-C.

    A terminal sends SIGHUP when it is closed; under nohup it stays ignored. A second Ctrl-C ends
    the process at once. In a run of several processes, JAX listens for SIGTERM in each of them and
    makes them agree on the step to stop at, and Ctrl-C ends the processes at once.
    """

    def __init__(self):
        self._asked = False
        self._before = {}

    def __enter__(self) -> "Stop":
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self, step: int) -> bool:
        """Returns True to stop after `step`, in all processes alike; all of them must call this."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked

    def _note(self, number: int, frame: object) -> None:
        self._asked = True
        if number == signal.SIGINT:
            signal.signal(number, self._before[number])


@contextlib.contextmanager
def naming_disk_errors(folder: epath.Path) -> Iterator[None]:
    """Turns an error of the operating system about `folder` or what it holds into a UserError."""
    try:
        yield
    except OSError as error:
        place = os.fsdecode(error.filename2 or error.filename or "")  # of a rename, the new name
        ours = place.startswith(os.fspath(folder)) if place else error.errno in _OF_ANY_FILE
        if not ours:
            raise
        reason = _REASONS.get(error.errno or 0, f"{error.strerror}: name another --workdir")
        raise UserError(f"{place or folder}: {reason}") from error
