"""Comparison of two codecs on each image at equal rate."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from fa_hific_jax.evaluation.rate_distortion.bootstrap import RESAMPLES, Interval, mean_interval
from fa_hific_jax.evaluation.rate_distortion.curves import Curve, Row, by_image

TOLERANCE = 0.05
"""Two rates count as equal if the larger is at most this share above the smaller."""


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
    images = sorted(of_a.keys() | of_b.keys())
    matches = {image: _match(image, of_a.get(image), of_b.get(image)) for image in images}
    found = tuple(match for match in matches.values() if isinstance(match, Match))
    reasons = {image: match for image, match in matches.items() if isinstance(match, str)}
    wins = {name: sum(match.winner == name for match in found) for name in ("a", "b", "tie")}
    differences = np.array([match.difference for match in found])
    mean = mean_interval(differences, seed=seed, resamples=resamples)
    return Matched(found, mean, wins, reasons)


def _match(image: str, a: Curve | None, b: Curve | None) -> Match | str:
    """Returns the comparison of one image, or the reason why there is none."""
    if a is None or b is None:
        return "coded by one of the two only"
    if not len(a.bpp) or not len(b.bpp):
        return "the metric was not measured for both"
    low, high = max(a.bpp[0], b.bpp[0]), min(a.bpp[-1], b.bpp[-1])
    if low > high * (1 + TOLERANCE):
        spans = " and ".join(f"{c.bpp[0]:.3f} to {c.bpp[-1]:.3f}" for c in (a, b))
        return f"no rate in common: {spans} bpp"
    mean_a, mean_b = (c.mean(low, high) for c in (a, b))
    winner = "tie" if mean_a == mean_b else "a" if mean_a > mean_b else "b"
    of_a, of_b = a.in_units(mean_a), b.in_units(mean_b)
    ends = (float(min(low, high)), float(max(low, high)))
    return Match(image, ends, of_a, of_b, of_b - of_a, winner)
