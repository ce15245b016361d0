"""Reads and writes standard input and output, pipes and character devices: never replaces them."""

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
"""Paths for which `-` stands as an input and as an output."""

_READER_SECONDS = 2.0  # how long `send` waits until another program opens the pipe to read it


class _Dropping(io.FileIO):
    """A file that drops what cannot be written instead of raising an error."""

    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            super().write(data)
        return len(data)


def make_safe() -> None:
    """Makes printing to standard error safe: it never fails, even on a full disk.

    To be called at the start of a process. Closed standard descriptors are opened on /dev/null:
    otherwise the next file to be opened would get such a number, and with it whatever libraries
    print. On standard output, characters that the terminal's encoding lacks are escaped.
    """
    with contextlib.suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) < 3:
            pass
        os.close(number)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        buffer = io.BufferedWriter(_Dropping(2, "w", closefd=False))  # pyright: ignore
        encoding = getattr(sys.stderr, "encoding", None)
        sys.stderr = io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=True)


def descriptor_of(path: StrPath) -> int | None:
    """Returns the descriptor number that a name such as /dev/fd/3 stands for, else None."""
    if match := re.fullmatch(r"(?:/dev|/proc/self)/fd/(\d+)", str(path)):
        return int(match[1])
    return {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}.get(str(path))


def is_stream(path: StrPath) -> bool:
    """Returns True for an open descriptor (/dev/stdout, /dev/fd/N), a pipe, a character device."""
    return is_read_once(path) or stat.S_ISCHR(_mode(path))


def is_read_once(path: StrPath) -> bool:
    """Returns True for an open descriptor (/dev/stdin, /dev/fd/N) and for a named pipe."""
    return descriptor_of(path) is not None or stat.S_ISFIFO(_mode(path))


def is_terminal(path: StrPath) -> bool:
    """Returns True if bytes written to `path` would appear on a terminal."""
    number = descriptor_of(path)
    with contextlib.suppress(OSError):
        if number is not None:
            return os.isatty(number)
        if stat.S_ISCHR(_mode(path)):
            with open(os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK), "wb", 0) as device:
                return device.isatty()
    return False


def receive(path: StrPath) -> bytes:
    """Reads a stream to its end; raises an OSError if it is closed or cannot be read."""
    if descriptor_of(path) != 0:
        return Path(path).read_bytes()
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin.buffer.read()


def send(data: bytes, path: StrPath) -> None:
    """Writes all bytes to a stream, without a buffer, in which a broken pipe would leave bytes.

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
    """Returns the mode of the file at the path, symbolic links followed; 0 if there is none."""
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
            # Without O_NONBLOCK, opening a pipe that nobody reads would block, and in a thread no
            # signal can interrupt that.
            descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
            os.set_blocking(descriptor, True)
            return descriptor
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > end:
                reason = "no program has opened this pipe to read it"
                raise OSError(errno.ENXIO, reason, str(path)) from error
            time.sleep(0.02)
