"""Early ends of a run: it is asked to stop, or the disk does not take what it makes."""

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

_REASONS = {
    errno.ENOSPC: "no space left there: make room",
    errno.EDQUOT: "the disk quota is used up: make room",
    errno.EFBIG: "a file may not grow further there: raise the limit of file sizes",
    errno.EACCES: "no permission to write there: mend its permissions or name another --workdir",
    errno.EPERM: "no permission to write there: mend its permissions or name another --workdir",
    errno.EROFS: "its file system is read-only: name another --workdir",
}


class Stop:
    """Whether the run was asked to stop; as a context, from SIGTERM and from Ctrl-C.

    A second Ctrl-C ends the process at once. Where several processes run, JAX listens for SIGTERM
    in all of them and has them agree on the step; Ctrl-C ends those.
    """

    def __init__(self):
        self._asked = False
        self._before = {}

    def __enter__(self) -> "Stop":
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self, step: int) -> bool:
        """Whether to stop after `step`: the same answer in all processes, which all must ask."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked

    def _note(self, number: int, frame: object) -> None:
        self._asked = True
        if number == signal.SIGINT:
            signal.signal(number, self._before[number])


@contextlib.contextmanager
def naming_full_disks(folder: epath.Path) -> Iterator[None]:
    """Turns what a full, forbidden or read-only disk raises below `folder` into a UserError."""
    try:
        yield
    except OSError as error:
        ours = error.filename is None or os.fspath(error.filename).startswith(os.fspath(folder))
        if not ours or error.errno not in _REASONS:
            raise
        raise UserError(f"{error.filename or folder}: {_REASONS[error.errno]}") from error
