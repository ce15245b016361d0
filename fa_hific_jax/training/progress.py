"""A report of a run: means of its metrics, its speed, and the time that is left."""

import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from fa_hific_jax.errors import UserError

SHOWN = (
    *("loss", "bpp_rounded", "bpp_target", "psnr", "lpips", "ffl", "dsl", "gan_generator"),
    *("gan_discriminator", "eval/bpp", "eval/psnr"),
)


class Progress:
    """Measures the speed between two reports, and writes a report as one line."""

    def __init__(self, first_step: int, last_step: int, batch_size: int):
        self._last_step, self._batch_size = last_step, batch_size
        self._previous = (first_step, time.monotonic())
        self._waited = 0.0

    def fetch(self, batches: Iterator[np.ndarray], computing: Any) -> np.ndarray:
        """Returns the next batch; its time counts as waiting if `computing` is ready by then."""
        start = time.monotonic()
        batch = next(batches)
        if all(leaf.is_ready() for leaf in jax.tree.leaves(computing)):
            self._waited += time.monotonic() - start
        return batch

    def measure(self, step: int) -> dict[str, float]:
        """Returns the speed since the previous call, and the share of that time spent waiting."""
        now = time.monotonic()
        seconds = max(now - self._previous[1], 1e-9)
        images = (step - self._previous[0]) * self._batch_size
        waited, self._previous, self._waited = self._waited, (step, now), 0.0
        return {
            "speed/images_per_second": images / seconds,
            "speed/waiting_for_data": min(waited / seconds, 1.0),
        }

    def line(self, step: int, values: dict[str, float]) -> str:
        """Returns a report as one line, from metrics that include those of `measure`."""
        rate, waiting = values["speed/images_per_second"], values["speed/waiting_for_data"]
        seconds = (self._last_step - step) * self._batch_size / max(rate, 1e-9)
        shown = "  ".join(f"{name} {values[name]:.4g}" for name in SHOWN if name in values)
        return (
            f"step {step}/{self._last_step}  {rate:.1f} images/s  waiting for data {waiting:.0%}  "
            f"{duration(seconds)} left  {shown}"
        )


def duration(seconds: float) -> str:
    """Returns a duration with the two units that matter, for example "3 min 05 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, whole_hours = divmod(hours, 24)
    if days:
        return f"{days} d {whole_hours:02d} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def check_and_average(metrics: list[dict], last_step: int, max_nonfinite: int) -> dict[str, float]:
    """Returns the mean of each metric over those of consecutive steps that were finite.

    NaN where no step was finite. "skipped" and "skipped_in_row" are those of the last step, which
    has the number `last_step`. A UserError if more than `max_nonfinite` steps in a row were not
    finite.
    """
    columns = {
        name: np.asarray(jax.device_get([values[name] for values in metrics]))
        for name in metrics[0]
    }
    in_row = columns["skipped_in_row"]
    if in_row.max() > max_nonfinite:
        at = int(np.argmax(in_row > max_nonfinite))
        names = ", ".join(sorted(name for name in columns if not np.isfinite(columns[name][at])))
        raise UserError(
            f"training stopped: {int(in_row[at])} steps in a row were not finite, up to step "
            f"{last_step - len(metrics) + 1 + at} ({names}); lower optimizer.learning_rate and "
            "start again from the last checkpoint"
        )
    finite = in_row == 0
    means = {
        name: float(np.mean(column[finite])) if finite.any() else np.nan
        for name, column in columns.items()
    }
    return means | {name: float(columns[name][-1]) for name in ("skipped", "skipped_in_row")}
