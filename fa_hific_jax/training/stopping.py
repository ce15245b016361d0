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

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_IN_THE_WAY = (errno.EEXIST, errno.EISDIR)


class Stop:
    """Context that notes requests to stop the run: SIGTERM, SIGHUP and Ctrl-C.

    A signal that is ignored, as SIGHUP under nohup, stays so. A second Ctrl-C ends the process at
    once. In a run of several processes, JAX listens for SIGTERM in each of them and makes them
    agree on the step to stop at, and Ctrl-C ends the processes at once.
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
        of_any_file = error.errno in (*_FULL, errno.EROFS)
        if not (place.startswith(os.fspath(folder)) if place else of_any_file):
            raise
        fix = "name another --workdir"
        if error.errno in _FULL:
            fix = "make room there"
        elif error.errno in _IN_THE_WAY:
            fix = "remove what is in its place"
        raise UserError(f"{place or folder}: {error.strerror}: {fix}") from error
