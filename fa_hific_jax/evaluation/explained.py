"""Text under the table of an evaluation: what each column means, and which codec leads in it."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from fa_hific_jax.evaluation import results as res
from fa_hific_jax.evaluation.rate_distortion import Curve, curve
from fa_hific_jax.evaluation.results import Results, columns, heading

SAME_RATE = 0.05
"""Largest relative difference of two rates that are compared without a curve between points."""


def legend(results: Results) -> list[str]:
    """Returns one line for each column of `results.format_table`."""
    described, names = columns(results)
    width = max(len(heading(described, name)) for name in names)
    return [f"{heading(described, name):<{width}}  {res.COLUMNS[name]}" for name in names]


def leaders(results: Results) -> list[str]:
    """Returns a sentence for each point of a model: the classical codecs better at its rate.

    The values of a codec with several points are interpolated between the means (PCHIP over the
    logarithm of the rate). A codec with a single point is compared where its rate is within
    SAME_RATE. There are no sentences where no classical codec has a value at that rate.
    """
    means = [mean for mean in res.flat_means(results) if mean["bpp"]]
    kinds = res.grouped(means, lambda mean: results["codecs"][mean["codec"]]["kind"])
    others = res.grouped(kinds.get("baseline", ()), itemgetter("codec"))
    return list(filter(None, (_sentence(results, m, others) for m in kinds.get("model", ()))))


def _sentence(
    results: Results, own: Mapping[str, Any], others: Mapping[str, Sequence[Mapping[str, Any]]]
) -> str:
    ahead, first, bpp, metrics = [], [], own["bpp"], results["metrics"]
    for name in columns(results)[1]:
        if name not in metrics or own.get(name) is None:
            continue
        better, decimals = metrics[name]["better"], metrics[name]["decimals"]
        curves = {codec: curve(points, name, better) for codec, points in others.items()}
        found = {codec: each.mean(bpp, bpp) for codec, each in curves.items() if _has(each, bpp)}
        score = float(curve([own], name, better).scores[0])
        # As many digits as the table shows: codecs that look equal there are equal here.
        leading = {c: v for c, v in found.items() if round(v, decimals) > round(score, decimals)}
        told = [f"{codec} {abs(value):.{decimals}f}" for codec, value in leading.items()]
        if told:
            here = f"here {abs(score):.{decimals}f}"
            ahead.append(f"{heading(metrics, name)} ({', '.join(told)}; {here})")
        elif found:
            first.append(heading(metrics, name))
    called = " ".join(filter(None, res.point_of(own)))
    return (
        ""
        if not (ahead or first)
        else (
            f"At {bpp:.3f} bpp, the rate of {called}, classical codecs lead in "
            f"{', '.join(ahead) or 'nothing'}. {called} leads in {', '.join(first) or 'nothing'}."
        )
    )


def _has(codec: Curve, bpp: float) -> bool:
    """Returns True if the curve includes the rate, or its only point nearly does."""
    rates = codec.bpp.tolist()
    if len(rates) == 1:
        return abs(rates[0] / bpp - 1) <= SAME_RATE
    return len(rates) > 1 and rates[0] <= bpp <= rates[-1]
