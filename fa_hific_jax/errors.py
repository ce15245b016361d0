"""Errors that a user can fix or that the system raises, as one sentence; how a command says it."""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

_BROKEN_PIPE = 141  # what a shell reports of a program that SIGPIPE ended
_BAD_SETTING = re.compile(r"[Ii]nvalid .*value ['\"](.*)['\"] for (?:JAX flag|environment) '?(\w+)")
_OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # how JAX begins such an error, whatever the device
_NO_DEVICE = re.compile("unable to initialize backend|unknown backend", re.IGNORECASE)


class UserError(ValueError):
    """Bad input: the message is one sentence that names the thing and the mend.

    Commands print the message alone and exit with code 2; any other exception is a bug and keeps
    its traceback.
    """


def shown(name: object) -> str:
    r"""Returns a name as it may reach a terminal: what does not print is escaped.

    An escape character becomes \x1b, a newline \n, a byte that is not UTF-8 \xff.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in str(name))


def one_line(text: str) -> str:
    """Returns a text without line ends and without characters that do not print."""
    return shown(re.sub(r"\s*\n\s*", " ", text.strip()))


def say(line: str) -> None:
    """Prints one line to standard error, where that takes it."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(one_line(line), file=sys.stderr)


def fail(sentence: str, code: int = 2) -> NoReturn:
    """Prints the sentence as one line to standard error and exits."""
    say(f"error: {sentence}")
    sys.exit(code)


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Ends the process with one sentence after an error in the block that is no bug.

    The exit code is 2 after a user's mistake, 1 after an error of the operating system, 130 after
    Ctrl-C. A reader of standard output that has gone, as `head` does, ends it with 141 and silence.
    """
    try:
        try:
            yield
        finally:
            _flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except UserError as error:
        fail(str(error))
    except (OSError, MemoryError) as error:
        if isinstance(error, BrokenPipeError) and error.filename is None:
            sys.exit(_BROKEN_PIPE)
        fail(reason(error), code=1)
    except (RuntimeError, AssertionError, ValueError) as error:
        if not (_lacks_device(error) or _bad_setting(error) or _out_of_memory(error)):
            raise
        fail(reason(error), code=1 if _out_of_memory(error) else 2)


def reason(error: BaseException) -> str:
    """Returns what an error says, in one line without the name of its type where it is known."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        name = "" if error.filename is None else f"{shown(os.fsdecode(error.filename))}: "
        return name + error.strerror
    if isinstance(error, MemoryError) or _out_of_memory(error):
        return "not enough memory: free some, or give smaller images or batches"
    if _lacks_device(error):
        asked, why = os.environ.get("JAX_PLATFORMS", ""), text.partition("\n")[0].partition(". ")[0]
        return (
            f"JAX_PLATFORMS is {asked!r}, and JAX finds no such device{why and f' ({why})'}: unset "
            "JAX_PLATFORMS, or install JAX with the plug-in of that device"
        )
    if told := _bad_setting(error):
        return f"{told[2].upper()} is {told[1]!r}, which JAX does not take: unset that variable"
    return one_line(text) or type(error).__name__


def _flush() -> None:
    """Writes out what waits for standard output; where that fails, drops it and names the place."""
    output = sys.stdout
    if output is None:
        return
    try:
        output.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())  # Python flushes it once more.
        if isinstance(error, BrokenPipeError):
            raise
        raise OSError(error.errno, error.strerror, "standard output") from error


def _lacks_device(error: BaseException) -> bool:
    """Returns True where JAX found none of the devices that JAX_PLATFORMS names."""
    if isinstance(error, AssertionError):  # what is raised for "cuda" on a machine without a GPU
        frames = traceback.extract_tb(error.__traceback__)
        return any(frame.filename.endswith("xla_bridge.py") for frame in frames)
    return isinstance(error, RuntimeError) and bool(_NO_DEVICE.search(str(error)))


def _bad_setting(error: BaseException) -> re.Match[str] | None:
    """What JAX says of an environment variable whose value it does not take, else None."""
    return _BAD_SETTING.match(str(error)) if isinstance(error, ValueError) else None


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY in str(error)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
