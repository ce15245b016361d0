"""One line per report: how far, how fast, how long still, how good."""

import time
from collections.abc import Callable
from typing import TypeVar

SHOWN = (
    *("loss", "bpp_rounded", "bpp_target", "psnr", "lpips", "ffl", "dsl", "gan_generator"),
    *("gan_discriminator", "eval/bpp", "eval/psnr"),
)
Item = TypeVar("Item")


class Progress:
    """Measures the speed between two reports, and puts it into words."""

    def __init__(self, first_step: int, last_step: int, batch_size: int):
        self._last_step, self._batch_size = last_step, batch_size
        self._previous = (first_step, time.monotonic())
        self._waited = 0.0

    def fetch(self, get: Callable[[], Item], idle: Callable[[], bool]) -> Item:
        """What `get` returns; its time counts as waiting where `idle` says so afterwards."""
        start = time.monotonic()
        item = get()
        if idle():
            self._waited += time.monotonic() - start
        return item

    def measure(self, step: int) -> dict[str, float]:
        """Metrics speed/images_per_second, and speed/waiting_for_data as a share of the time.

        Both since the previous call.
        """
        now = time.monotonic()
        seconds = max(now - self._previous[1], 1e-9)
        images = (step - self._previous[0]) * self._batch_size
        waited, self._previous, self._waited = self._waited, (step, now), 0.0
        return {
            "speed/images_per_second": images / seconds,
            "speed/waiting_for_data": min(waited / seconds, 1.0),
        }

    def line(self, step: int, values: dict[str, float]) -> str:
        """A report in one line: `values` are metrics, with those of `measure`."""
        rate, waiting = values["speed/images_per_second"], values["speed/waiting_for_data"]
        seconds = (self._last_step - step) * self._batch_size / max(rate, 1e-9)
        shown = "  ".join(f"{name} {values[name]:.4g}" for name in SHOWN if name in values)
        return (
            f"step {step}/{self._last_step}  {rate:.1f} images/s  waiting for data {waiting:.0%}  "
            f"{duration(seconds)} left  {shown}"
        )


def duration(seconds: float) -> str:
    """Days, hours, minutes and seconds as people write them, e.g. "3 min 05 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, whole_hours = divmod(hours, 24)
    if days:
        return f"{days} d {whole_hours:02d} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
