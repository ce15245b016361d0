"""Curves of a metric over the rate, and the two mean distances of Bjøntegaard between them.

G. Bjøntegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001, with
monotone cubic pieces (PCHIP) through the points, as JCTVC-L1100 does, over the logarithm of bpp.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator

from fa_hific_jax.errors import UserError

MIN_POINTS = 3
"""Fewest points of a curve for a BD number: HiFiC has three, low, medium and high."""
MIN_SHARE = 0.25
"""Least share of the shorter curve's range that both must cover for a BD number."""

Row = Mapping[str, Any]
Numbers = Float[np.ndarray, " n"]
Others = Float[np.ndarray, " m"]


class Curve(NamedTuple):
    """Points in rising order of bpp, no two at the same."""

    bpp: Numbers
    scores: Numbers  # the metric, negated if lower is better, minus its absolute value if zero is
    better: str  # "higher", "lower" or "zero", as in the metric's description

    def frontier(self) -> "Curve":
        """Returns the curve without points that are no better than a cheaper one."""
        best = np.maximum.accumulate(np.concatenate([[-np.inf], self.scores[:-1]]))
        keep = self.scores > best
        return Curve(self.bpp[keep], self.scores[keep], self.better)

    def mean(self, low: float, high: float) -> float:
        """Returns the mean score over the logarithm of bpp from low to high.

        Rates beyond an end of the curve count as that end. With low >= high it is the score at low.
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
    low: float | None = None  # ends of the averaged range, in the metric or in bpp
    high: float | None = None
    share: float | None = None  # the averaged range as a share of the shorter curve's
    dropped: int = 0  # number of points left out because a cheaper one was at least as good


def curve(points: Iterable[Row], metric: str, better: str) -> Curve:
    """Returns the curve of the points that have the metric.

    Args:
      points: rows of one image or means over images, with "bpp" and "values".
      metric: its id.
      better: "higher", "lower" or "zero" (a signed error).
    """
    measured = [(p["bpp"], p["values"].get(metric)) for p in points if p["bpp"] is not None]
    both = np.array([(bpp, value) for bpp, value in measured if value is not None], np.float64)
    both = both.reshape(-1, 2)
    return of_arrays(both[:, 0], both[:, 1], better)


def of_arrays(bpp: Numbers, values: Numbers, better: str) -> Curve:
    """Returns the sorted curve with the best of points at the same bpp and no bpp <= 0."""
    scores = {"higher": values, "lower": -values, "zero": -np.abs(values)}[better]
    order = np.lexsort((-scores, bpp))
    order = order[np.isfinite(scores[order]) & (bpp[order] > 0)]
    bpp, first = np.unique(bpp[order], return_index=True)
    return Curve(bpp, scores[order][first], better)


def by_image(rows: Iterable[Row], metric: str, better: str) -> dict[str, Curve]:
    """Returns the curve of each image."""
    images: dict[str, list[Row]] = {}
    for row in rows:
        images.setdefault(row["image"], []).append(row)
    return {image: curve(of_image, metric, better) for image, of_image in images.items()}


def families(points: Iterable[Row]) -> dict[str, list[Row]]:
    """Groups points by everything in their name except the quality: each family is one curve.

    A decoder's detail does not change the file, so points of several details have the same bpp and
    do not lie on one curve: "q=0.5,detail=1" is of the family "detail=1".
    """
    found: dict[str, list[Row]] = {}
    for point in points:
        parts = point["point"].split(",")
        rest = [part for part in parts if not part.startswith(("q=", "quality "))]
        found.setdefault(",".join(rest), []).append(point)
    return found


def bd_rate(a: Curve, b: Curve) -> Delta:
    """Returns the mean rate of b relative to a at equal quality, minus 100 %.

    It is negative where b is smaller. Quality must rise with the rate, so points that are no
    better than a cheaper one of their curve are left out, and counted.

    Raises:
      UserError: the package bjontegaard is not installed.
    """
    front_a, front_b = a.frontier(), b.frontier()
    dropped = len(a.bpp) + len(b.bpp) - len(front_a.bpp) - len(front_b.bpp)
    found = _overlap(front_a.scores, front_b.scores, "qualities")
    if isinstance(found, str):
        return Delta(None, found, dropped=dropped)
    low, high, share = found
    value = _library().bd_rate(front_a.bpp, front_a.scores, front_b.bpp, front_b.scores, **_OPTIONS)
    worst, best = a.in_units(low), a.in_units(high)
    return Delta(float(value), None, min(worst, best), max(worst, best), share, dropped)


def bd_metric(a: Curve, b: Curve) -> Delta:
    """Returns the mean of metric b minus metric a at equal rate, over the logarithm of the rate.

    For a signed error it is the difference of the absolute values.

    Raises:
      UserError: the package bjontegaard is not installed.
    """
    found = _overlap(np.log(a.bpp), np.log(b.bpp), "rates")
    if isinstance(found, str):
        return Delta(None, found)
    low, high, share = found
    value = _library().bd_psnr(a.bpp, a.scores, b.bpp, b.scores, **_OPTIONS)
    return Delta(a.in_units(float(value)), None, float(np.exp(low)), float(np.exp(high)), share)


_OPTIONS = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}


def _overlap(a: Numbers, b: Others, called: str) -> tuple[float, float, float] | str:
    """Returns ends of the common range and its share of the shorter, or why it is too small."""
    fewest = min(len(a), len(b))
    if fewest < MIN_POINTS:
        return f"a curve has {fewest} usable points where {MIN_POINTS} are needed"
    low, high = float(max(a.min(), b.min())), float(min(a.max(), b.max()))
    if low >= high:
        return f"the curves share no {called}"
    share = (high - low) / float(min(np.ptp(a), np.ptp(b)))
    if share < MIN_SHARE:
        return f"the curves share only {share:.0%} of the {called} of the shorter one"
    return low, high, share


def _library() -> Any:
    try:
        import bjontegaard
    except ImportError:
        raise UserError(
            "BD-rate and BD-metric need the package bjontegaard: install the extra `eval`"
        ) from None
    return bjontegaard
