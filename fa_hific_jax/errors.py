"""Reports errors that a user can fix, and those of the operating system, as one sentence each."""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

_BROKEN_PIPE = 141  # the exit code that a shell reports for a program that SIGPIPE ended
_BAD_SETTING = re.compile(r"[Ii]nvalid .*value ['\"](.*)['\"] for (?:JAX flag|environment) '?(\w+)")
_NO_DEVICE = re.compile("unable to initialize backend|unknown backend", re.IGNORECASE)


class UserError(ValueError):
    """A mistake of the user. The message is one sentence that names the problem and the fix.

    Commands print the message alone and exit with code 2; any other exception is a bug and keeps
    its traceback.
    """


PER_FILE = (UserError, OSError, MemoryError, RuntimeError)
"""Errors that may concern a single file; JAX raises a RuntimeError when memory runs out."""


def shown(name: object) -> str:
    r"""Returns a name in a form that is safe to print: unprintable characters are escaped.

    The escape character becomes \x1b, a newline \n, and a byte that is not UTF-8 such as 255 \xff.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in str(name))


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # Python's surrogate for a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def one_line(text: str) -> str:
    """Returns a text as one line, with unprintable characters escaped."""
    return shown(re.sub(r"\s*\n\s*", " ", text.strip()))


def say(line: str) -> None:
    """Prints one line to standard error; does nothing if that cannot be written."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(one_line(line), file=sys.stderr)


def fail(sentence: str, code: int = 2) -> NoReturn:
    """Prints `error: ` and the sentence to standard error as one line, and exits with `code`."""
    say(f"error: {sentence}")
    sys.exit(code)


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Ends the process with one sentence if an error other than a bug leaves the block.

    The exit code is 2 after a user's mistake, 1 after an error of the operating system and 130
    after Ctrl-C. If the reader of standard output has closed it, as `head` does, the process ends
    silently with code 141.
    """
    try:
        try:
            yield
        finally:
            _flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and error.filename is None:
            sys.exit(_BROKEN_PIPE)
        if not (isinstance(error, UserError | OSError) or _advice(error)):
            raise
        fail(reason(error), code=1 if isinstance(error, OSError) or out_of_memory(error) else 2)


def _flush() -> None:
    """Flushes standard output. If that fails, drops the rest and raises an OSError naming it."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python flushes once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            error.filename = "standard output"
        raise


def reason(error: BaseException) -> str:
    """Returns the message of an error in one line, with advice if the cause is a known one."""
    if isinstance(error, OSError) and error.strerror:
        name = "" if error.filename is None else f"{shown(os.fsdecode(error.filename))}: "
        return name + error.strerror
    text = str(error).partition("\n")[0] if isinstance(error, RuntimeError) else str(error)
    return _advice(error) or one_line(text) or type(error).__name__


def about(path: Path, error: BaseException) -> str:
    """Returns one line that begins with the name of the file and says what went wrong with it."""
    name = shown(path)
    if isinstance(error, OSError) and error.strerror:
        other = error.filename not in (None, str(path))
        return f"{name}: {error.strerror}" + (f" ({shown(error.filename)})" if other else "")
    text = str(error).removeprefix(f"{path}: ") if isinstance(error, UserError) else reason(error)
    return f"{name}: {one_line(text)}"


def out_of_memory(error: BaseException) -> bool:
    """Returns True if the memory of the host or of a device is exhausted."""
    exhausted = isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    return exhausted or isinstance(error, MemoryError)


def _advice(error: BaseException) -> str:
    """Returns a sentence on an error whose cause is known not to be a bug; "" for any other."""
    text = str(error)
    if out_of_memory(error):
        return "not enough memory: free some, or use smaller images or batches"
    if isinstance(error, ValueError) and (told := _BAD_SETTING.match(text)):
        return f"{told[2].upper()} is {told[1]!r}, which JAX does not accept: unset that variable"
    frames = traceback.extract_tb(error.__traceback__)
    # JAX raises an AssertionError for "cuda" on a machine without a GPU.
    asserted = isinstance(error, AssertionError) and any("xla_bridge" in f.filename for f in frames)
    if not asserted and not (isinstance(error, RuntimeError) and _NO_DEVICE.search(text)):
        return ""
    asked, why = os.environ.get("JAX_PLATFORMS", ""), text.partition("\n")[0].partition(". ")[0]
    return (
        f"JAX_PLATFORMS is {asked!r}, but JAX finds no such device{why and f' ({why})'}: unset "
        "JAX_PLATFORMS, or install JAX with the plug-in for that device"
    )
