"""Standard input and output, pipes and character devices: read or written to, never replaced."""

import contextlib
import errno
import os
import re
import stat
import sys
import time
from pathlib import Path

StrPath = str | os.PathLike[str]
STDIN, STDOUT = Path("/dev/stdin"), Path("/dev/stdout")
"""What `-` means as an input and as an output."""

_READER_SECONDS = 30.0  # for which a pipe waits until another program opens it


def is_stream(path: StrPath) -> bool:
    """Returns True for an open descriptor (/dev/stdout, /dev/fd/N), a pipe, a character device."""
    if _descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def is_terminal(path: StrPath) -> bool:
    """Returns True where bytes that are written to `path` would appear on a terminal."""
    number = _descriptor(path)
    try:
        if number is not None:
            return os.isatty(number)
        if not stat.S_ISCHR(os.stat(path).st_mode):
            return False
        descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.isatty(descriptor)
    finally:
        os.close(descriptor)


def send(data: bytes, path: StrPath) -> None:
    """Writes all bytes to a stream, without a buffer that a broken pipe would leave filled.

    Raises:
      OSError: the stream is closed, or within 30 s no other program has opened the pipe to read it.
    """
    rest = memoryview(data)
    with contextlib.ExitStack() as stack:
        if _descriptor(path) == 1:
            if sys.stdout is None:
                raise OSError(errno.EBADF, "standard output is closed")
            sys.stdout.flush()
            out = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
        else:
            out = stack.enter_context(open(_open(path), "wb", buffering=0))
        while rest:
            rest = rest[out.write(rest) :]


def _descriptor(path: StrPath) -> int | None:
    """The number of the open descriptor that a name such as /dev/fd/3 stands for."""
    name = str(path)
    if match := re.fullmatch(r"(?:/dev|/proc/self)/fd/(\d+)", name):
        return int(match[1])
    return {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}.get(name)


def _open(path: StrPath) -> int:
    number = _descriptor(path)
    if number is not None:
        return os.dup(number)
    end = time.monotonic() + _READER_SECONDS
    while True:
        try:
            # Without O_NONBLOCK a pipe that nobody reads blocks, and no signal ends that in a
            # thread.
            descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > end:
                reason = "no program has opened this pipe to read it"
                raise OSError(errno.ENXIO, reason, str(path)) from error
            time.sleep(0.02)
        else:
            os.set_blocking(descriptor, True)
            return descriptor
