"""Shows the progress of a command on standard error."""

import io
import sys
import threading
import time

from fa_hific_jax.errors import shown

_PATIENCE = 3.0  # seconds for which a single image is processed without any output
_TERMINAL_SECONDS = 0.3  # between two updates on a terminal
_LOG_SECONDS = 30.0  # between two lines elsewhere


class Progress:
    """A context that shows images done, MB/s of raw pixels (3 bytes each) and the time left.

    On a terminal, one line is updated in place; elsewhere a line is printed every 30 s. A thread
    does this, so that it works even while the first image waits for the compiler. For a single
    image that takes less than 3 s, nothing is printed.
    """

    def __init__(self, images: int, pixels: int, stream: io.TextIOBase | None = None):
        self._images, self._pixels = images, pixels
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._done, self._done_pixels = 0, 0
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._over.set()
        self._thread.join()
        if kind is None and (self._images > 1 or self._elapsed() > _PATIENCE):
            self.say(f"{self._state()} in {_clock(self._elapsed())}")
        elif self._terminal:
            self._write("\r\x1b[K")

    def advance(self, pixels: int) -> None:
        """Counts one more image, of that many pixels, as done."""
        with self._lock:
            self._done += 1
            self._done_pixels += pixels

    def say(self, line: str) -> None:
        """Prints a separate line above the progress; unprintable characters are escaped."""
        line = shown(line)
        self._write(f"\r\x1b[K{line}\n" if self._terminal else f"{line}\n")

    def _renew(self) -> None:
        patience = _PATIENCE if self._images == 1 else 0.0
        if self._over.wait(patience):
            return
        while not self._over.wait(_TERMINAL_SECONDS if self._terminal else _LOG_SECONDS):
            line = self._state() + self._time_left()
            self._write(f"\r\x1b[K{line}" if self._terminal else f"{line}\n")

    def _write(self, text: str) -> None:
        with self._lock:
            self._stream.write(text)
            self._stream.flush()

    def _state(self) -> str:
        if not self._done_pixels:
            return f"{self._done}/{self._images} images"
        rate = 3e-6 * self._done_pixels / max(self._elapsed(), 1e-3)
        return f"{self._done}/{self._images} images, {rate:.2f} MB/s"

    def _time_left(self) -> str:
        if not self._done_pixels:
            return f", {_clock(self._elapsed())} so far"
        rest = max(self._pixels - self._done_pixels, 0)
        return f", {_clock(self._elapsed() * rest / self._done_pixels)} left"

    def _elapsed(self) -> float:
        return time.monotonic() - self._start


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"
