"""Curves of a metric over the rate, and the two mean distances of Bjøntegaard between them.

docs/evaluation.md says what the numbers mean and when there are none.
G. Bjøntegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001, with
monotone cubic pieces (PCHIP) through the points, as in JCTVC-L1100, over the logarithm of bpp.
"""

import math
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator

from fa_hific_jax.evaluation.results import grouped

MIN_POINTS = 3
"""Fewest points of a curve for a BD number: HiFiC has three, low, medium and high."""
MIN_SHARE = 0.25
"""Least share of the shorter curve's range that both curves must cover for a BD number."""

Row = Mapping[str, Any]
Numbers = Float[np.ndarray, " n"]
Others = Float[np.ndarray, " m"]


class Curve(NamedTuple):
    """Points in rising order of bpp, no two at the same bpp."""

    bpp: Numbers
    scores: Numbers  # the metric; negated if lower is better, minus its absolute value if zero is
    better: str  # "higher", "lower" or "zero", as in the metric's description

    def frontier(self) -> "Curve":
        """Returns the curve without the points that are no better than a cheaper point."""
        best = np.maximum.accumulate(np.concatenate([[-np.inf], self.scores[:-1]]))
        keep = self.scores > best
        return Curve(self.bpp[keep], self.scores[keep], self.better)

    def mean(self, low: float, high: float) -> float:
        """Returns the mean score over the logarithm of bpp; that at `low` if low >= high.

        Rates beyond an end of the curve count as that end.
        """
        if len(self.bpp) == 1:
            return float(self.scores[0])
        ends = np.log(np.clip([low, high], self.bpp[0], self.bpp[-1]))
        pieces = PchipInterpolator(np.log(self.bpp), self.scores)
        if low >= high:
            return float(pieces(ends[0]))
        return float(pieces.integrate(*ends)) / float(ends[1] - ends[0])

    def in_units(self, score: float) -> float:
        """Returns a score in the unit of the metric (its absolute value, where zero is best)."""
        return score if self.better == "higher" else -score


class Delta(NamedTuple):
    """Mean distance of curve b from curve a."""

    value: float | None  # percent of a's rate (BD-rate) or units of the metric (BD-metric)
    reason: str | None = None  # why there is no value
    low: float = math.nan  # ends of the averaged range, in the metric or in bpp
    high: float = math.nan
    share: float = math.nan  # the averaged range as a share of the shorter curve's range
    dropped: int = 0  # number of points left out because a cheaper one was at least as good


def curve(points: Iterable[Row], metric: str, better: str) -> Curve:
    """Returns the curve of a metric through rows of one image, or through means over images."""
    pairs = [(point["bpp"], point["values"].get(metric)) for point in points]
    bpp, values = np.array(pairs, np.float64).reshape(-1, 2).T  # None becomes NaN
    return of_arrays(bpp, values, better)


def of_arrays(bpp: Numbers, values: Numbers, better: str) -> Curve:
    """Returns the sorted curve of finite points with rates > 0, the best of those at one bpp."""
    scores = {"higher": values, "lower": -values, "zero": -np.abs(values)}[better]
    order = np.lexsort((-scores, bpp))
    order = order[np.isfinite(scores[order]) & (bpp[order] > 0)]
    bpp, first = np.unique(bpp[order], return_index=True)
    return Curve(bpp, scores[order][first], better)


def by_image(rows: Iterable[Row], metric: str, better: str) -> dict[str, Curve]:
    """Returns the curve of each image."""
    images = grouped(rows, itemgetter("image")).items()
    return {image: curve(of_image, metric, better) for image, of_image in images}


def families(points: Iterable[Row]) -> dict[str, list[Row]]:
    """Groups points by their name without the quality: each family, as "detail=1", is one curve.

    A decoder's detail does not change the file, so points of several details have the same bpp.
    """

    def family(point: Row) -> str:
        parts = point["point"].split(",")
        return ",".join(part for part in parts if not part.startswith(("q=", "quality ")))

    return grouped(points, family)


def bd_rate(a: Curve, b: Curve) -> Delta:
    """Returns the mean rate of b relative to a at equal quality, minus 100 %.

    Quality must rise with the rate, so the points outside each `Curve.frontier` are left out.
    """
    fronts = a.frontier(), b.frontier()
    dropped = sum(len(each.bpp) for each in (a, b)) - sum(len(front.bpp) for front in fronts)
    found = _mean_gap("qualities", *((front.scores, np.log10(front.bpp)) for front in fronts))
    if found.value is None:
        return found._replace(dropped=dropped)
    low, high = sorted(a.in_units(score) for score in (found.low, found.high))
    return Delta((10**found.value - 1) * 100, None, low, high, found.share, dropped)


def bd_metric(a: Curve, b: Curve) -> Delta:
    """Returns the mean of metric b minus metric a at equal rate, over the logarithm of the rate.

    For a signed error it is the difference of the absolute values.
    """
    found = _mean_gap("rates", *((np.log10(each.bpp), each.scores) for each in (a, b)))
    if found.value is None:
        return found
    return Delta(a.in_units(found.value), None, 10**found.low, 10**found.high, found.share)


def _mean_gap(called: str, a: tuple[Numbers, Numbers], b: tuple[Others, Others]) -> Delta:
    """Returns the mean of b minus a over their common range, each being (rising x, y)."""
    fewest = min(len(a[0]), len(b[0]))
    if fewest < MIN_POINTS:
        return Delta(None, f"a curve has {fewest} usable points where {MIN_POINTS} are needed")
    low, high = float(max(a[0][0], b[0][0])), float(min(a[0][-1], b[0][-1]))
    if low >= high:
        return Delta(None, f"the curves share no {called}")
    share = (high - low) / float(min(np.ptp(a[0]), np.ptp(b[0])))
    if share < MIN_SHARE:
        return Delta(None, f"the curves share only {share:.0%} of the {called} of the shorter one")
    area_a, area_b = (float(PchipInterpolator(*each).integrate(low, high)) for each in (a, b))
    return Delta((area_b - area_a) / (high - low), None, low, high, share)
