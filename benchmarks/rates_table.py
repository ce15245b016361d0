"""A table of the models of an evaluation at a few rates, with differences to one of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fa_hific_jax.evaluation.paired import RESAMPLES, Interval, mean_interval
from fa_hific_jax.evaluation.rate_distortion import by_image, families
from fa_hific_jax.evaluation.results import heading, number

RATES = (0.15, 0.3, 0.45)
METRICS = ("psnr", "ms_ssim", "lpips_alex", "lfd", "lsd", "band_middle", "band_high")
SETS = ("fd_alex", "kid_alex")
REFERENCE = "hific"

Rows = list[Mapping[str, Any]]


class AtRate(NamedTuple):
    """Value of a metric at a rate, and its difference to the reference."""

    value: Interval  # mean over the images that reach the rate
    difference: Interval | None  # to the reference, over the images where both reach it


def rates_table(
    results: Mapping[str, Any],
    rates: Sequence[float] = RATES,
    metrics: Sequence[str] = METRICS + SETS,
    reference: str = REFERENCE,
) -> str:
    """Returns a table with a block of lines for each rate: means over images, then differences.

    Differences to the reference are paired and have half of their 95 % interval; metrics of whole
    sets have no interval. A model that decodes with several details has a line for each. If fewer
    images reach a rate than were coded, their number follows the name.

    Raises:
      ValueError: the results have no codec with the id `reference`.
    """
    curves = _curves(results)
    if reference not in {name.partition(",")[0] for name in curves}:
        raise ValueError(f"no {reference} among {', '.join(curves)}")
    beside = next(rows for name, rows in curves.items() if name.partition(",")[0] == reference)
    measured = [m for m in metrics if any(_has(row, m) for row in beside)]
    blocks = []
    for rate in rates:
        lines = [_line(f"{rate:g} bpp", [heading(results["metrics"], m) for m in measured])]
        for name, rows in curves.items():
            found = {m: at_rate(rows, m, rate, beside) for m in measured}
            if any(at.value.value is not None for at in found.values()):
                lines += _lines(name, found, results, is_reference=rows is beside)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def at_rate(
    rows: Iterable[Mapping[str, Any]],
    metric: str,
    bpp: float,
    reference: Iterable[Mapping[str, Any]] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> AtRate:
    """Returns a metric at the rate `bpp`, as a mean over the images whose curves include it.

    Args:
      rows: rows of one curve, of any number of images.
      metric: id of the metric.
      bpp: rate in bits per pixel.
      reference: rows of the model to compare with; the difference is paired, image by image.
      seed: seed of the resamples.
      resamples: number of resamples for each interval.
    """
    drawn = {"seed": seed, "resamples": resamples}
    found = _at(rows, metric, bpp)
    value = mean_interval(np.array(list(found.values())), **drawn)
    if reference is None:
        return AtRate(value, None)
    other = _at(reference, metric, bpp)
    differences = np.array([found[image] - other[image] for image in found if image in other])
    return AtRate(value, mean_interval(differences, **drawn))


def _at(rows: Iterable[Mapping[str, Any]], metric: str, bpp: float) -> dict[str, float]:
    # "higher" keeps the sign: nothing is compared here.
    curves = by_image(rows, metric, "higher").items()
    spans = {image: c for image, c in curves if len(c.bpp) > 1 and c.bpp[0] <= bpp <= c.bpp[-1]}
    return {image: curve.mean(bpp, bpp) for image, curve in spans.items()}


def _curves(results: Mapping[str, Any]) -> dict[str, Rows]:
    """Returns the rows of each curve by name, with metrics of sets; models come first."""
    rates = {(mean["codec"], mean["point"]): mean["bpp"] for mean in results["means"]}
    of_sets = [
        {**entry, "image": "", "bpp": bpp, "values": {entry["metric"]: entry["value"]}}
        for entry in results["sets"]
        if (bpp := rates.get((entry["codec"], entry["point"]))) is not None
    ]
    found, codecs = {}, results["codecs"]
    for codec in sorted(codecs, key=lambda codec: codecs[codec]["kind"] != "model"):
        rows = [row for row in [*results["rows"], *of_sets] if row["codec"] == codec]
        for family, of_family in families(rows).items():
            found[f"{codec},{family}".rstrip(",")] = of_family
    return found


def _has(row: Mapping[str, Any], metric: str) -> bool:
    return row["values"].get(metric) is not None


def _lines(
    name: str, found: Mapping[str, AtRate], results: Mapping[str, Any], *, is_reference: bool
) -> list[str]:
    decimals = {metric: results["metrics"][metric]["decimals"] for metric in found}
    count = max(at.value.images for at in found.values())
    label = name if count == results["meta"]["count"] else f"{name} ({count})"
    lines = [_line(label, [number(at.value.value, decimals[m]) for m, at in found.items()])]
    if not is_reference:
        lines.append(_line("", [_signed(at.difference, decimals[m]) for m, at in found.items()]))
    return lines


def _line(label: str, cells: list[str]) -> str:
    return (f"{label:<20}" + "".join(f"{cell:>18}" for cell in cells)).rstrip()


def _signed(interval: Interval | None, decimals: int) -> str:
    if interval is None or interval.value is None:
        return "-"
    half = ""
    if interval.low is not None and interval.high is not None:
        half = f" ±{(interval.high - interval.low) / 2:.{decimals}f}"
    return f"{interval.value:+.{decimals}f}{half}"
