"""Two codecs on each image at equal rate: who wins where."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

from fa_hific_jax.evaluation.rate_distortion.bootstrap import RESAMPLES, Interval, mean_interval
from fa_hific_jax.evaluation.rate_distortion.curves import Curve, curve

TOLERANCE = 0.05
"""Rates of which the larger is at most this share above the smaller pass for equal."""

Row = Mapping[str, Any]


class Match(NamedTuple):
    """One image. `a` and `b` are the metric (its size, where zero is best), as is `difference`.

    Attributes:
      image: its name.
      bpp: ends of the range in common, or the two rates where they only pass for equal.
      a, b: means over that range of the logarithm of the rate.
      difference: b - a.
      winner: "a", "b" or "tie".
    """

    image: str
    bpp: tuple[float, float]
    a: float
    b: float
    difference: float
    winner: str


class Matched(NamedTuple):
    """All images.

    Attributes:
      images: those that could be compared, by name.
      mean: of their differences.
      wins: how many each has won, "a", "b" and "tie".
      not_measured: image -> why it could not be compared.
    """

    images: tuple[Match, ...]
    mean: Interval
    wins: dict[str, int]
    not_measured: dict[str, str]


def matched_rate(
    rows_a: Iterable[Row],
    rows_b: Iterable[Row],
    metric: str,
    better: str,
    *,
    seed: int,
    tolerance: float = TOLERANCE,
    resamples: int = RESAMPLES,
) -> Matched:
    """Compares the metric on each image at equal bpp.

    Through an image's points goes a monotone cubic curve (PCHIP) over the logarithm of bpp, and
    the two curves are averaged over the rates that both have, without going beyond their ends.
    A codec with one point is held against the other's curve at its rate. Where the ranges do not
    meet, their nearest ends are compared if they pass for equal, and otherwise nothing is.

    Args:
      rows_a, rows_b: each of one curve: one codec, one family, any number of images.
      metric, better: as in `curve`.
      seed: of the interval's resampling.
      tolerance: by how much rates may differ that pass for equal.
      resamples: as in `bootstrap`.
    """
    of_a, of_b = (_by_image(rows, metric, better) for rows in (rows_a, rows_b))
    found: list[Match] = []
    reasons: dict[str, str] = {}
    for image in sorted(of_a.keys() | of_b.keys()):
        match = _match(image, of_a.get(image), of_b.get(image), tolerance)
        if isinstance(match, Match):
            found.append(match)
        else:
            reasons[image] = match
    wins = {name: sum(match.winner == name for match in found) for name in ("a", "b", "tie")}
    differences = np.array([match.difference for match in found])
    mean = mean_interval(differences, seed=seed, resamples=resamples)
    return Matched(tuple(found), mean, wins, reasons)


def _by_image(rows: Iterable[Row], metric: str, better: str) -> dict[str, Curve]:
    images: dict[str, list[Row]] = {}
    for row in rows:
        images.setdefault(row["image"], []).append(row)
    return {image: curve(of_image, metric, better) for image, of_image in images.items()}


def _match(image: str, a: Curve | None, b: Curve | None, tolerance: float) -> Match | str:
    if a is None or b is None:
        return "coded by one of the two only"
    if not len(a.bpp) or not len(b.bpp):
        return "the metric was not measured for both"
    low, high = max(a.bpp[0], b.bpp[0]), min(a.bpp[-1], b.bpp[-1])
    if low > high * (1 + tolerance):
        spans = " and ".join(f"{c.bpp[0]:.3f} to {c.bpp[-1]:.3f}" for c in (a, b))
        return f"no rate in common: {spans} bpp"
    means = [_mean(c, low, high) for c in (a, b)]
    winner = "tie" if means[0] == means[1] else "a" if means[0] > means[1] else "b"
    of_a, of_b = (a.in_units(mean) for mean in means)
    ends = (float(min(low, high)), float(max(low, high)))
    return Match(image, ends, of_a, of_b, of_b - of_a, winner)


def _mean(c: Curve, low: float, high: float) -> float:
    """The mean score from low to high, or where they do not span a range, at the nearest rate."""
    if len(c.bpp) == 1:
        return float(c.scores[0])
    ends = np.log(np.clip([low, high], c.bpp[0], c.bpp[-1]))
    pieces = PchipInterpolator(np.log(c.bpp), c.scores)
    if low >= high:
        return float(pieces(ends[0]))
    return float(pieces.integrate(*ends)) / float(ends[1] - ends[0])
