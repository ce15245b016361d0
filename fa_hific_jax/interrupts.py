"""Lets Ctrl-C, SIGTERM and SIGHUP end a command, whatever it and its threads are waiting for."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

from fa_hific_jax import writing

GRACE_SECONDS = 3.0
"""Seconds that a command has after the first signal to finish what it is writing."""

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
_asked: list[int] = []


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Lets a signal end the block, and the process with exit code 128 + the signal's number.

    - The signal raises KeyboardInterrupt in the main thread. Python drops that exception in a
      callback of the garbage collector; `end_if_asked` then raises it again.
    - A second thread learns of the signal even while the main thread runs compiled code. It ends
      the process after `GRACE_SECONDS`, or at once when a second signal arrives.
    - The process does not wait for threads that never return, for example from a dead network disk.

    Temporary files are removed in each case. A signal that was ignored from the start (under nohup,
    or in a background job of a script) stays ignored. Outside the main thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked.clear()
    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, _note) for number in heard}
    hook = sys.unraisablehook
    # Python would print the exception that it drops in a callback, with a traceback.
    ours = sys.unraisablehook = lambda lost: None if _asked else hook(lost)
    pipe, told = os.pipe()
    os.set_blocking(told, False)
    wakeup = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(pipe,), daemon=True).start()
    try:
        yield
        end_if_asked()
    except BaseException:  # Libraries may turn a KeyboardInterrupt into another error.
        if not _asked:
            raise
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join(0.1)
                if thread.is_alive():  # A normal exit would wait for it forever.
                    _end_at_once(_asked[0])
        sys.exit(128 + _asked[0])
    finally:
        signal.set_wakeup_fd(wakeup)
        os.close(told)
        if sys.unraisablehook is ours:  # Another hook may stand before it by now.
            sys.unraisablehook = hook
        for number, handler in handlers.items():
            signal.signal(number, handler)


def end_if_asked() -> None:
    """Raises KeyboardInterrupt if a signal has arrived. Long loops call it between two files."""
    if _asked:
        raise KeyboardInterrupt


def _note(number: int, frame: object) -> NoReturn:
    _asked.append(number)
    raise KeyboardInterrupt


def _watch(pipe: int) -> None:
    """Reads the numbers of signals until the other end of the pipe is closed."""
    timer = None
    while number := os.read(pipe, 1):
        if number[0] not in _SIGNALS:
            continue
        if timer:
            _end_at_once(number[0])
        timer = threading.Timer(GRACE_SECONDS, _end_at_once, [number[0]])
        timer.daemon = True
        timer.start()
    os.close(pipe)
    if timer:
        timer.cancel()


def _end_at_once(number: int) -> NoReturn:
    writing.remove_unfinished()
    os._exit(128 + number)
