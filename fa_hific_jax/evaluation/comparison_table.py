"""Text of a comparison of two evaluations: totals, then image by image."""

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from fa_hific_jax.evaluation.paired import LEVEL
from fa_hific_jax.evaluation.results import aligned, grouped, heading

_READ = {"higher": "higher", "lower": "lower", "zero": "near 0"}
_WINNER = {"a": "A", "b": "B", "tie": "="}


def format_comparison(comparison: Mapping[str, Any]) -> str:
    """Returns a result of `comparison.compare` as aligned text, with notes on what it lacks."""
    a, b = comparison["names"]
    parts = [f"A = {a}, B = {b}: {len(comparison['images'])} images in both"]
    for pair in comparison["pairs"]:
        parts.append(f"A: {pair['a']}   B: {pair['b']}")
        parts += [aligned(_totals(pair)), aligned(_by_image(pair["metrics"])), _reasons(pair)]
    parts += [
        "B - A: mean difference at equal bpp; BD-rate: mean difference of the rate at equal "
        f"quality, negative where B needs less; in brackets {LEVEL:.0%} intervals from "
        f"{comparison['resamples']} resamples of the images",
        *comparison["notes"],
    ]
    return "\n\n".join(filter(None, parts))


def _totals(pair: Mapping[str, Any]) -> list[list[str]]:
    lines = [["at equal bpp", "better", "A wins", "B wins", "ties", "B - A", "", "BD-rate", ""]]
    entries = {**pair["metrics"], **pair["sets"]}
    for name, entry in entries.items():
        cells = ["-", "-", "-", "-", "", "-", ""]
        if "not_measured" not in entry:
            wins = [str(entry["matched"]["wins"][side]) for side in _WINNER]
            mean = _interval(entry["matched"]["mean"], entry["decimals"])
            cells = [*wins, *mean, *_interval(entry["bd_rate"], 1, " %")]
        lines.append([heading(entries, name), _READ[entry["better"]], *cells])
    return lines


def _interval(found: Mapping[str, Any], decimals: int, unit: str = "") -> list[str]:
    """Returns a number and its interval as two cells, "-" where there is none."""
    if found["value"] is None:
        return ["-", ""]
    value, *ends = (
        "" if found[n] is None else f"{found[n]:+.{decimals}f}" for n in ("value", "low", "high")
    )
    return [value + unit, f"[{', '.join(ends)}]" if all(ends) else ""]


def _by_image(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Returns a line for each image: the rates, then winner and difference by metric."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, entry in metrics.items():
        for match in entry["matched"]["images"]:
            found.setdefault(match["image"], {})[name] = match
    names = [name for name in metrics if any(name in matches for matches in found.values())]
    lines = [["image", "bpp", *(heading(metrics, name) for name in names)]] if names else []
    for image, matches in sorted(found.items()):
        low, high = next(iter(matches.values()))["bpp"]
        rate = f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
        cells = [_winner(matches.get(name), metrics[name]["decimals"]) for name in names]
        lines.append([image, rate, *cells])
    return lines


def _winner(match: Mapping[str, Any] | None, decimals: int) -> str:
    return f"{_WINNER[match['winner']]} {match['difference']:+.{decimals}f}" if match else "-"


def _reasons(pair: Mapping[str, Any]) -> str:
    """Returns a line for each reason why something was not compared, with the metrics."""
    found: list[tuple[str, str]] = []
    for entry in (*pair["metrics"].values(), *pair["sets"].values()):
        label = entry["label"]
        if "not_measured" in entry:
            found.append((f"not compared: {entry['not_measured']}", label))
            continue
        for image, reason in entry["matched"]["not_measured"].items():
            found.append((f"{image}: not compared: {reason}", label))
        if entry["bd_rate"]["value"] is None:
            found.append((f"no BD-rate: {entry['bd_rate']['reason']}", label))
    lines = grouped(found, itemgetter(0)).items()
    return "\n".join(f"{reason} ({', '.join(label for _, label in of)})" for reason, of in lines)
