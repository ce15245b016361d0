"""Comparison of two codecs over the same images: at equal rate, and with intervals.

An interval comes from resampling the images (B. Efron and R. Tibshirani, "An Introduction to the
Bootstrap", 1993, chapter 13): they are drawn with replacement, the same ones for both codecs, and
curves are those of the means over the drawn images.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from fa_hific_jax.evaluation.rate_distortion import Curve, Delta, Row, by_image, of_arrays

RESAMPLES = 1000
LEVEL = 0.95
MAX_FAILED = 0.05
"""Largest share of resamples without a number for which there is an interval."""
TOLERANCE = 0.05
"""Two rates count as equal if the larger is at most this share above the smaller."""


class Interval(NamedTuple):
    """A number, and the ends between which it lies for a share of `LEVEL` of the resamples."""

    value: float | None  # over all images
    low: float | None
    high: float | None
    images: int  # number of images that took part
    reason: str | None = None  # why value, or low and high, are None


class Match(NamedTuple):
    """Comparison of one image. `a`, `b` and `difference` are in the unit of the metric."""

    image: str
    bpp: tuple[float, float]  # ends of the common range, or two rates that only count as equal
    a: float  # mean over that range of the logarithm of the rate
    b: float
    difference: float  # b - a
    winner: str  # "a", "b" or "tie"


class Matched(NamedTuple):
    """Comparison of all images."""

    images: tuple[Match, ...]  # those that could be compared, by name
    mean: Interval  # mean of their differences
    wins: dict[str, int]  # number of images by `Match.winner`
    not_measured: dict[str, str]  # image -> why it could not be compared


def mean_interval(
    differences: Float[np.ndarray, " n"], *, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """Returns the mean of one number per image, with its interval (none for a single image)."""
    count = len(differences)
    return _interval(lambda i: Delta(float(differences[i].mean())), count, seed, resamples)


def bootstrap(
    rows_a: Iterable[Row],
    rows_b: Iterable[Row],
    metric: str,
    better: str,
    statistic: Callable[[Curve, Curve], Delta],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """Returns `bd_rate` or `bd_metric` of two codecs' mean curves, with its interval over images.

    Images that only one of them has, or that lack the metric at all points of one, do not take
    part. Then points that lack it on some image are left out. The rows of each are of one codec and
    one family; `metric` and `better` are as in `curve`.
    """
    tables: list[dict[str, dict[str, tuple[float, float]]]] = [{}, {}]  # by point and image
    for table, rows in zip(tables, (rows_a, rows_b), strict=True):
        for row in rows:
            if (value := row["values"].get(metric)) is not None:
                # A signed error counts by its absolute value.
                pair = row["bpp"], abs(value) if better == "zero" else value
                table.setdefault(row["point"], {})[row["image"]] = pair
    images = sorted(set.intersection(*(set().union(*table.values()) for table in tables)))
    grids = []
    for table in tables:
        whole = [[of[i] for i in images] for of in table.values() if of.keys() >= set(images)]
        grids.append(np.array(whole, np.float64).reshape(len(whole), len(images), 2))

    def of(chosen: np.ndarray) -> Delta:
        means = (grid[:, chosen].mean(axis=1).T for grid in grids)
        return statistic(*(of_arrays(bpp, values, better) for bpp, values in means))

    return _interval(of, len(images), seed, resamples)


def _interval(
    statistic: Callable[[np.ndarray], Delta], count: int, seed: int, resamples: int
) -> Interval:
    """Returns a statistic of the numbers of chosen images, with its interval."""
    if not count:
        return Interval(None, None, None, 0, "no image was measured with both")
    whole = statistic(np.arange(count))
    if whole.value is None or count == 1:
        return Interval(whole.value, None, None, count, whole.reason or "one image has no spread")
    draws = np.random.default_rng(seed).integers(count, size=(resamples, count))
    found = [value for draw in draws if (value := statistic(draw).value) is not None]
    failed = resamples - len(found)
    if failed > MAX_FAILED * resamples:
        reason = f"{failed} of {resamples} resamples have too little in common"
        return Interval(whole.value, None, None, count, reason)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(found, [tail, 1 - tail]).tolist()
    return Interval(whole.value, low, high, count)


def matched_rate(
    rows_a: Iterable[Row],
    rows_b: Iterable[Row],
    metric: str,
    better: str,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Matched:
    """Compares the metric on each image at equal bpp; the arguments are those of `bootstrap`.

    The two curves of an image are averaged over the rates that both cover (`Curve.mean`). A codec
    with one point is compared with the other's curve at its rate. If the ranges do not meet, their
    nearest ends are compared if they count as equal (`TOLERANCE`), and otherwise nothing is.
    """
    of_a, of_b = (by_image(rows, metric, better) for rows in (rows_a, rows_b))
    both = {i: _matched(i, of_a.get(i), of_b.get(i)) for i in sorted(of_a.keys() | of_b.keys())}
    found = tuple(match for match in both.values() if isinstance(match, Match))
    wins = {name: sum(match.winner == name for match in found) for name in ("a", "b", "tie")}
    differences = np.array([match.difference for match in found])
    mean = mean_interval(differences, seed=seed, resamples=resamples)
    return Matched(found, mean, wins, {i: m for i, m in both.items() if isinstance(m, str)})


def _matched(image: str, a: Curve | None, b: Curve | None) -> Match | str:
    """Returns the comparison of an image, or the reason why there is none."""
    if a is None or b is None:
        return "coded by one of the two only"
    if not (len(a.bpp) and len(b.bpp)):
        return "the metric was not measured for both"
    low, high = float(max(a.bpp[0], b.bpp[0])), float(min(a.bpp[-1], b.bpp[-1]))
    if low > high * (1 + TOLERANCE):
        spans = " and ".join(f"{c.bpp[0]:.3f} to {c.bpp[-1]:.3f}" for c in (a, b))
        return f"no rate in common: {spans} bpp"
    mean_a, mean_b = (each.mean(low, high) for each in (a, b))
    winner = "tie" if mean_a == mean_b else "a" if mean_a > mean_b else "b"
    value_a, value_b = a.in_units(mean_a), b.in_units(mean_b)
    ends = (min(low, high), max(low, high))
    return Match(image, ends, value_a, value_b, value_b - value_a, winner)
