"""Standard input and output, pipes and character devices: read or written to, never replaced."""

import contextlib
import errno
import io
import os
import re
import stat
import sys
import time
from pathlib import Path
from typing import Any

StrPath = str | os.PathLike[str]
STDIN, STDOUT = Path("/dev/stdin"), Path("/dev/stdout")
"""What `-` means as an input and as an output."""

_READER_SECONDS = 2.0  # for which a pipe waits until another program opens it


class _Dropping(io.FileIO):
    """A file of which what cannot be written is lost in silence."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def make_safe() -> None:
    """Makes standard error a place where writing never fails, at the start of a process.

    Closed standard descriptors become /dev/null, as the next file that is opened would get the
    number, and with it what libraries print. A disk that is full costs the notes alone. On standard
    output, a name that the encoding of the terminal cannot hold is escaped.
    """
    with contextlib.suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) < 3:
            pass
        os.close(number)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        raw = _Dropping(2, "w", closefd=False)
        buffer = io.BufferedWriter(raw)  # pyright: ignore[reportArgumentType]
        encoding = getattr(sys.stderr, "encoding", None)
        sys.stderr = io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=True)


def descriptor_of(path: StrPath) -> int | None:
    """The number of the open descriptor that a name such as /dev/fd/3 stands for, else None."""
    name = str(path)
    if match := re.fullmatch(r"(?:/dev|/proc/self)/fd/(\d+)", name):
        return int(match[1])
    return {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}.get(name)


def is_stream(path: StrPath) -> bool:
    """Returns True for an open descriptor (/dev/stdout, /dev/fd/N), a pipe, a character device."""
    return is_read_once(path) or stat.S_ISCHR(_mode(path))


def is_terminal(path: StrPath) -> bool:
    """Returns True where bytes that are written to `path` would appear on a terminal."""
    number = descriptor_of(path)
    try:
        if number is not None:
            return os.isatty(number)
        if not stat.S_ISCHR(_mode(path)):
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
    return descriptor_of(path) is not None or stat.S_ISFIFO(_mode(path))


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


def _mode(path: StrPath) -> int:
    """The kind of what is at the path, links followed; 0 where nothing can be found there."""
    try:
        return os.stat(path).st_mode
    except OSError:
        return 0


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
