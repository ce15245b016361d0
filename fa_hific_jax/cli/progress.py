"""Shows the progress of a command on standard error."""

import datetime
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

    A thread updates one line on a terminal, and elsewhere prints one every 30 s. For a single image
    that takes less than 3 s, nothing is printed. `pixels` is the sum over all images.
    """

    def __init__(self, images: int, pixels: int = 0, stream: io.TextIOBase | None = None):
        self.pixels = pixels
        self._images = images
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._done, self._done_pixels = 0, 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> "Progress":
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._over.set()
        self._thread.join()
        seconds = time.monotonic() - self._start
        if kind is None and (self._images > 1 or seconds > _PATIENCE):
            self._write(f"{self._state(seconds)} in {_clock(seconds)}\n")
        else:
            self._write("")

    def advance(self, pixels: int) -> None:
        """Counts one more image, of that many pixels, as done."""
        with self._lock:
            self._done += 1
            self._done_pixels += pixels

    def say(self, line: str) -> None:
        """Prints a separate line above the progress; unprintable characters are escaped."""
        self._write(f"{shown(line)}\n")

    def _renew(self) -> None:
        if self._images == 1 and self._over.wait(_PATIENCE):
            return
        while not self._over.wait(_TERMINAL_SECONDS if self._terminal else _LOG_SECONDS):
            seconds = time.monotonic() - self._start
            left = f"{_clock(seconds)} so far"
            if self._done_pixels:
                rest = max(self.pixels - self._done_pixels, 0)
                left = f"{_clock(seconds * rest / self._done_pixels)} left"
            self._write(f"{self._state(seconds)}, {left}" + "\n" * (not self._terminal))

    def _write(self, text: str) -> None:
        """Writes a text in place of the line that a terminal shows."""
        with self._lock:
            self._stream.write(f"\r\x1b[K{text}" if self._terminal else text)
            self._stream.flush()

    def _state(self, seconds: float) -> str:
        rate = f", {3e-6 * self._done_pixels / max(seconds, 1e-3):.2f} MB/s"
        return f"{self._done}/{self._images} images{rate if self._done_pixels else ''}"


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{datetime.timedelta(seconds=round(seconds))}"
