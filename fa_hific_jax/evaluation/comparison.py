"""Comparison of the models of two evaluations at equal rate, image by image, and its text."""

import itertools
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation.paired import LEVEL, RESAMPLES, bootstrap, matched_rate
from fa_hific_jax.evaluation.rate_distortion import bd_rate, families
from fa_hific_jax.evaluation.results import Results, aligned, grouped, heading, plain, point_of

Rows = list[Mapping[str, Any]]

_READ = {"higher": "higher", "lower": "lower", "zero": "near 0"}
_WINNER = {"a": "A", "b": "B", "tie": "="}


def compare(
    a: Results, b: Results, names: tuple[str, str] = ("A", "B"), resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Compares every model of `a` with every model of `b`, on the images that both have.

    `a` and `b` are contents of two results.json, which are called `names`. The result is
    {"names", "resamples", "images": names of those compared, "notes": sentences on what was left
    out, "pairs": [{"a", "b": labels, "metrics": {id: {"label", "unit", "better", "decimals",
    "matched": a `Matched`, "bd_rate": an `Interval`}}, "sets": the same of whole sets}]}.
    Differences are b minus a. Raises a UserError if they share no image or one has no model.
    """
    images, notes = _common_images((a, b), names)
    whole = not notes
    models = [_curves(*each, images) for each in zip((a, b), names, strict=True)]
    metrics = _common_metrics(a, b, notes)
    pairs = []
    for (label_a, of_a), (label_b, of_b) in itertools.product(*models):
        for family_a, family_b in _same_families(of_a, of_b, f"{label_a} and {label_b}", notes):
            rows = of_a[family_a], of_b[family_b]
            pair: dict[str, Any] = {
                "a": ", ".join(filter(None, (label_a, family_a))),
                "b": ", ".join(filter(None, (label_b, family_b))),
                "metrics": {m: _compared(rows, m, metrics[m], resamples) for m in metrics},
                "sets": {},
            }
            # Of a part of the images, sets would need new distances.
            sets = [_sets(*each) for each in zip((a, b), rows, strict=True)]
            for name, of_sets in sets[0].items():
                about, others = _described(a["metrics"][name]), sets[1].get(name, [])
                if whole and all(p["protocol"] == of_sets[0]["protocol"] for p in of_sets + others):
                    about = _compared((of_sets, others), name, about, resamples)
                else:
                    other = "protocols" if whole else "images"
                    about["not_measured"] = f"the two have different {other}"
                pair["sets"][name] = about
            pairs.append(pair)
    found = {"names": names, "resamples": resamples, "images": sorted(images)}
    return plain(found | {"notes": notes, "pairs": pairs})


def _common_images(
    both: tuple[Results, Results], names: tuple[str, str]
) -> tuple[set[str], list[str]]:
    """Returns the images with the same size and pixels in both, and notes on the others."""
    in_a, in_b = (
        {row["image"]: (row["width"], row["height"], row.get("sha256")) for row in results["rows"]}
        for results in both
    )
    common = {name for name, _ in in_a.items() & in_b.items()}
    if not common:
        raise UserError(f"{names[0]} and {names[1]} share no image: evaluate both on the same ones")
    notes = []
    for one, other, name in ((in_a, in_b, names[0]), (in_b, in_a, names[1])):
        if missing := sorted(one.keys() - common):
            told = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            different = " or another picture" if other.keys() & missing else ""
            notes.append(f"{len(missing)} images are in {name} only{different}: {told}")
    return common, notes


def _curves(results: Results, name: str, images: set[str]) -> list[tuple[str, dict[str, Rows]]]:
    """Returns the label of each model and the rows of each of its curves."""
    about = results["codecs"]
    rows = (row for row in results["rows"] if row["image"] in images)
    models = grouped((r for r in rows if about[r["codec"]]["kind"] == "model"), itemgetter("codec"))
    if not models:
        raise UserError(f"{name} has no measured rows of a model: evaluate one there")
    return [(about[codec]["label"], families(of_model)) for codec, of_model in models.items()]


def _common_metrics(a: Results, b: Results, notes: list[str]) -> dict[str, dict[str, Any]]:
    """Returns the metrics of single images that both have measured in the same way."""
    common: dict[str, dict[str, Any]] = {}
    per_image = {name for results in (a, b) for row in results["rows"] for name in row["values"]}
    for name in (name for name in a["metrics"] if name in per_image & b["metrics"].keys()):
        one, other = a["metrics"][name], b["metrics"][name]
        if reason := one.get("not_measured") or other.get("not_measured"):
            notes.append(f"{one['label']}: not measured: {reason}")
        elif one.get("reference") != other.get("reference"):
            notes.append(f"{one['label']}: not compared: the two were defined differently")
        else:
            common[name] = _described(one)
    return common


def _described(about: Mapping[str, Any]) -> dict[str, Any]:
    return {key: about[key] for key in ("label", "unit", "better", "decimals")}


def _same_families(
    a: Mapping[str, Rows], b: Mapping[str, Rows], models: str, notes: list[str]
) -> list[tuple[str, str]]:
    """Returns pairs of curves of the same name; two single curves make a pair in any case."""
    if len(a) == len(b) == 1:
        return [(next(iter(a)), next(iter(b)))]
    if lonely := sorted(a.keys() ^ b.keys()):
        told = ", ".join(name or "points without a name" for name in lonely)
        notes.append(f"{models} do not both have {told}: not compared")
    return [(name, name) for name in a if name in b]


def _compared(
    rows: tuple[Rows, Rows], name: str, about: Mapping[str, Any], resamples: int
) -> dict[str, Any]:
    compared, drawn = (*rows, name, about["better"]), {"seed": 0, "resamples": resamples}
    matched, rate = matched_rate(*compared, **drawn), bootstrap(*compared, bd_rate, **drawn)
    return {**about, "matched": matched, "bd_rate": rate}


def _sets(results: Results, rows: Iterable[Mapping[str, Any]]) -> dict[str, Rows]:
    """Returns the metrics of sets at the points of these rows, as rows of a single image."""
    wanted = set(map(point_of, rows))
    rates = {point_of(m): m["bpp"] for m in results["means"] if point_of(m) in wanted}
    entries = [
        {**e, "image": "all", "bpp": rates[point_of(e)], "values": {e["metric"]: e["value"]}}
        for e in results["sets"]
        if point_of(e) in rates
    ]
    return grouped(entries, itemgetter("metric"))


def format_comparison(comparison: Mapping[str, Any]) -> str:
    """Returns a result of `comparison.compare` as aligned text, with notes on what it lacks."""
    a, b = comparison["names"]
    parts = [f"A = {a}, B = {b}: {len(comparison['images'])} images in both"]
    for pair in comparison["pairs"]:
        parts.append(f"A: {pair['a']}   B: {pair['b']}")
        entries = {**pair["metrics"], **pair["sets"]}
        parts += [aligned(_totals(entries)), aligned(_by_image(pair["metrics"])), _reasons(entries)]
    parts += [
        "B - A: mean difference at equal bpp; BD-rate: mean difference of the rate at equal "
        f"quality, negative where B needs less; in brackets {LEVEL:.0%} intervals from "
        f"{comparison['resamples']} resamples of the images",
        *comparison["notes"],
    ]
    return "\n\n".join(filter(None, parts))


def _totals(entries: Mapping[str, Any]) -> list[list[str]]:
    lines = [["at equal bpp", "better", "A wins", "B wins", "ties", "B - A", "", "BD-rate", ""]]
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
    value, low, high = (found[key] for key in ("value", "low", "high"))
    interval = "" if low is None else f"[{low:+.{decimals}f}, {high:+.{decimals}f}]"
    return ["-" if value is None else f"{value:+.{decimals}f}{unit}", interval]


def _by_image(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Returns a line for each image: the rates, then winner and difference by metric."""
    by_name = {name: entry["matched"]["images"] for name, entry in metrics.items()}
    matches = [(match["image"], name, match) for name, of in by_name.items() for match in of]
    names = [name for name, of in by_name.items() if of]
    lines = [["image", "bpp", *(heading(metrics, name) for name in names)]] if names else []
    for image, found in sorted(grouped(matches, itemgetter(0)).items()):
        low, high = found[0][2]["bpp"]
        cells = dict.fromkeys(names, "-")
        for _, name, match in found:
            difference = f"{match['difference']:+.{metrics[name]['decimals']}f}"
            cells[name] = f"{_WINNER[match['winner']]} {difference}"
        rate = f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
        lines.append([image, rate, *cells.values()])
    return lines


def _reasons(entries: Mapping[str, Any]) -> str:
    """Returns a line for each reason why something was not compared, with the metrics."""
    labels: dict[str, list[str]] = {}
    for entry in entries.values():
        if "not_measured" in entry:
            reasons = [f"not compared: {entry['not_measured']}"]
        else:
            lacking = entry["matched"]["not_measured"]
            reasons = [f"{image}: not compared: {reason}" for image, reason in lacking.items()]
            if entry["bd_rate"]["value"] is None:
                reasons.append(f"no BD-rate: {entry['bd_rate']['reason']}")
        for reason in reasons:
            labels.setdefault(reason, []).append(entry["label"])
    return "\n".join(f"{reason} ({', '.join(of)})" for reason, of in labels.items())
