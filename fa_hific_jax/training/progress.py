"""One line per report: how far, how fast, how long still, how good."""

import time

SHOWN = ("loss", "bpp_rounded", "psnr", "lpips", "ffl", "dsl", "gan_generator", "gan_discriminator")


class Progress:
    """Prints progress with rate and remaining time to standard output."""

    def __init__(self, first_step: int, last_step: int):
        self._last_step = last_step
        self._previous = (first_step, time.monotonic())

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """One line; the rate is that since the previous report."""
        now = time.monotonic()
        rate = (step - self._previous[0]) / max(now - self._previous[1], 1e-9)
        self._previous = (step, now)
        values = "  ".join(f"{name} {metrics[name]:.4g}" for name in SHOWN if name in metrics)
        remaining = duration((self._last_step - step) / rate)
        print(
            f"step {step}/{self._last_step}  {rate:.1f} steps/s  {remaining} left  {values}",
            flush=True,
        )


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as people write them, e.g. "3 min 05 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
