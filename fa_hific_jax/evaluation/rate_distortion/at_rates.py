"""Several models at a few rates: a metric where each image's curve passes the rate."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

from fa_hific_jax.evaluation.rate_distortion.bootstrap import RESAMPLES, Interval, mean_interval

Row = Mapping[str, Any]


class AtRate(NamedTuple):
    """A metric at a rate.

    Attributes:
      value: its mean over the images that reach the rate, with its interval.
      difference: to the reference, over the images where both reach it; None without reference.
    """

    value: Interval
    difference: Interval | None


def at_rate(
    rows: Iterable[Row],
    metric: str,
    bpp: float,
    reference: Iterable[Row] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> AtRate:
    """The metric at `bpp` of each image, by a monotone cubic (PCHIP) over its logarithm.

    Nothing is said of an image whose points do not lie on both sides of the rate.

    Args:
      rows: of one curve, of any number of images; with "image", "bpp" and "values".
      metric: its id.
      bpp: bits per pixel.
      reference: rows of the model to compare with; the difference is paired, image by image.
      seed, resamples: of the intervals, as in `bootstrap`.
    """
    found = _by_image(rows, metric, bpp)
    value = mean_interval(np.array(list(found.values())), seed=seed, resamples=resamples)
    if reference is None:
        return AtRate(value, None)
    other = _by_image(reference, metric, bpp)
    differences = np.array([found[image] - other[image] for image in found if image in other])
    return AtRate(value, mean_interval(differences, seed=seed, resamples=resamples))


def _by_image(rows: Iterable[Row], metric: str, bpp: float) -> dict[str, float]:
    points: dict[str, dict[float, float]] = {}
    for row in rows:
        value = row["values"].get(metric)
        if row["bpp"] is not None and value is not None and np.isfinite(value):
            points.setdefault(row["image"], {})[row["bpp"]] = value
    found = {}
    for image, curve in points.items():
        rates = sorted(curve)
        if len(rates) > 1 and rates[0] <= bpp <= rates[-1]:
            pieces = PchipInterpolator(np.log(rates), [curve[rate] for rate in rates])
            found[image] = float(pieces(np.log(bpp)))
    return found
