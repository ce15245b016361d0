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

_READER_SECONDS = 2.0  # for which a pipe waits until another program opens it


def descriptor_of(path: StrPath) -> int | None:
    """The number of the open descriptor that a name such as /dev/fd/3 stands for, else None."""
    name = str(path)
    if match := re.fullmatch(r"(?:/dev|/proc/self)/fd/(\d+)", name):
        return int(match[1])
    return {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}.get(name)


def is_stream(path: StrPath) -> bool:
    """Returns True for an open descriptor (/dev/stdout, /dev/fd/N), a pipe, a character device."""
    if descriptor_of(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def is_terminal(path: StrPath) -> bool:
    """Returns True where bytes that are written to `path` would appear on a terminal."""
    number = descriptor_of(path)
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


def is_read_once(path: StrPath) -> bool:
    """Returns True for an open descriptor (/dev/stdin, /dev/fd/N) and for a named pipe."""
    return descriptor_of(path) is not None or Path(path).is_fifo()


def receive(path: StrPath) -> bytes:
    """Reads a stream to its end.

    Raises:
      OSError: the stream is closed or cannot be read.
    """
    if descriptor_of(path) != 0:
        return Path(path).read_bytes()
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin.buffer.read()


def send(data: bytes, path: StrPath) -> None:
    """Writes all bytes to a stream, without a buffer that a broken pipe would leave filled.

    Raises:
      OSError: the stream is closed, or no other program opens the pipe to read it within 2 s.
    """
    rest = memoryview(data)
    with contextlib.ExitStack() as stack:
        if descriptor_of(path) == 1:
            if sys.stdout is None:
                raise OSError(errno.EBADF, "standard output is closed")
            sys.stdout.flush()
            out = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
        else:
            out = stack.enter_context(open(_open(path), "wb", buffering=0))
        while rest:
            rest = rest[out.write(rest) :]


def _open(path: StrPath) -> int:
    number = descriptor_of(path)
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
