"""Rate-distortion analysis of measured points: curves, BD-rate, intervals, equal rates.

docs/evaluation.md says what the numbers mean and when there are none.
"""

from fa_hific_jax.evaluation.rate_distortion.bootstrap import Interval, bootstrap, mean_interval
from fa_hific_jax.evaluation.rate_distortion.curves import (
    Curve,
    Delta,
    bd_metric,
    bd_rate,
    by_image,
    curve,
    families,
)
from fa_hific_jax.evaluation.rate_distortion.matched import Match, Matched, matched_rate

__all__ = [
    "Curve",
    "Delta",
    "Interval",
    "Match",
    "Matched",
    "bd_metric",
    "bd_rate",
    "bootstrap",
    "by_image",
    "curve",
    "families",
    "matched_rate",
    "mean_interval",
]
