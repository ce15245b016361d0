"""Text under the table of an evaluation: what each column means, and which codec leads in it."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from fa_hific_jax.evaluation import rate_distortion
from fa_hific_jax.evaluation.results import Results, columns, flat_means, grouped, heading

SAME_RATE = 0.05
"""Largest relative difference of two rates that are compared without a curve between points."""

MEANINGS = {
    "bpp": "bits per pixel: 8 * bytes of the file / pixels",
    "bpp_estimated": "the same rate, as the model's own probabilities predict it",
    "lpips_alex": "distance to the original as people see it, by AlexNet; lower is better",
    "lpips_squeeze": "the same by SqueezeNet",
    "lpips_vgg": "the same by VGG16",
    "fd_alex": "distance between the set of originals and the decoded set; lower is better",
    "fid": "the same by Inception's features",
    "psnr": "accuracy of the pixels, in decibels; higher is better",
    "ms_ssim": "similarity of structure at five scales, at most 1; higher is better",
    "lsd": "log-spectral distance: error of the power at all frequencies; lower is better",
    "band_high": "power error of the finest detail; negative where it is lost, best at 0",
}
"""One line for each column of the table in a terminal."""


def legend(results: Results) -> list[str]:
    """Returns one line for each column of `results.format_table`."""
    described, names = columns(results)
    width = max(len(heading(described, name)) for name in names)
    return [f"{heading(described, name):<{width}}  {MEANINGS[name]}" for name in names]


def leaders(results: Results) -> list[str]:
    """Returns a sentence for each point of a model: the classical codecs better at its rate.

    The values of a codec with several points are interpolated between the means (PCHIP over the
    logarithm of the rate). A codec with a single point is compared where its rate is within
    SAME_RATE. There are no sentences where no classical codec has a value at that rate.
    """
    means = [mean for mean in flat_means(results) if mean["bpp"]]
    kinds = {codec: about["kind"] for codec, about in results["codecs"].items()}
    others = [mean for mean in means if kinds[mean["codec"]] == "baseline"]
    found = (_sentence(results, m, others) for m in means if kinds[m["codec"]] == "model")
    return [sentence for sentence in found if sentence]


def _sentence(results: Results, own: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    described, names = columns(results)
    ahead, first = [], []
    for name in (n for n in names if n in results["metrics"] and own.get(n) is not None):
        about = results["metrics"][name]
        unit, decimals = heading(described, name), about["decimals"]
        found = _at_rate(others, name, about["better"], own["bpp"])
        (score,) = rate_distortion.curve([_point(own, name)], name, about["better"]).scores
        # As many digits as the table shows: codecs that look equal there are equal here.
        least = round(float(score), decimals)
        better = [
            f"{codec} {abs(value):.{decimals}f}"
            for codec, value in found
            if round(value, decimals) > least
        ]
        if better:
            ahead.append(f"{unit} ({', '.join(better)}; here {abs(score):.{decimals}f})")
        elif found:
            first.append(unit)
    if not ahead and not first:
        return ""
    called = " ".join(filter(None, (own["codec"], own["point"])))
    return (
        f"At {own['bpp']:.3f} bpp, the rate of {called}, classical codecs lead in "
        f"{', '.join(ahead) or 'nothing'}. {called} leads in {', '.join(first) or 'nothing'}."
    )


def _at_rate(
    others: Sequence[Mapping[str, Any]], name: str, better: str, bpp: float
) -> list[tuple[str, float]]:
    """Returns (codec, score as in `rate_distortion.Curve`) of each codec that reaches the rate."""
    found = []
    for codec, points in grouped(others, itemgetter("codec")).items():
        curve = rate_distortion.curve([_point(p, name) for p in points], name, better)
        if len(curve.bpp) == 1:
            there = abs(curve.bpp[0] / bpp - 1) <= SAME_RATE
        else:
            there = len(curve.bpp) > 1 and curve.bpp[0] <= bpp <= curve.bpp[-1]
        if there:
            found.append((codec, curve.mean(bpp, bpp)))
    return found


def _point(mean: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"bpp": mean["bpp"], "values": {name: mean.get(name)}}
