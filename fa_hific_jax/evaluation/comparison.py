"""Comparison of the models of two evaluations at equal rate, image by image."""

import itertools
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation.paired import RESAMPLES, Interval, bootstrap, matched_rate
from fa_hific_jax.evaluation.rate_distortion import bd_rate, curve, families
from fa_hific_jax.evaluation.results import Results, grouped, plain, point_of

Rows = list[Mapping[str, Any]]


def compare(
    a: Results, b: Results, names: tuple[str, str] = ("A", "B"), resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Compares every model of `a` with every model of `b`, on the images that both have.

    Args:
      a, b: contents of two results.json.
      names: what to call them, such as their folders.
      resamples: as in `bootstrap`.

    Returns:
      {"names", "resamples", "images": names of those compared, "notes": sentences on what was left
      out, "pairs": [{"a", "b": labels, "metrics": {id: {"label", "unit", "better", "decimals",
      "matched": {"images", "mean", "wins", "not_measured"}, "bd_rate": an `Interval`}},
      "sets": the same of metrics of whole sets}]}; differences are b minus a.

    Raises:
      UserError: they share no image, or one of them has no model.
    """
    images, notes = _common_images(a, b, names)
    whole = not notes
    curves_a, curves_b = (_curves(*each, images) for each in ((a, names[0]), (b, names[1])))
    metrics = _common_metrics(a, b, notes)
    pairs = []
    for (label_a, of_a), (label_b, of_b) in itertools.product(curves_a, curves_b):
        for family in _same_families(of_a, of_b, (label_a, label_b), notes):
            rows = of_a[family[0]], of_b[family[1]]
            called = zip(("a", "b"), (label_a, label_b), family, strict=True)
            pair = {side: ", ".join(filter(None, parts)) for side, *parts in called}
            measured = {name: _measured(*rows, name, metrics[name], resamples) for name in metrics}
            sets = _sets(a, _points_of_sets(a, rows[0]), _points_of_sets(b, rows[1]), whole)
            pairs.append({**pair, "metrics": measured, "sets": sets})
    found = {"names": names, "resamples": resamples, "images": sorted(images)}
    return plain(found | {"notes": notes, "pairs": pairs})


def _common_images(a: Results, b: Results, names: Sequence[str]) -> tuple[set[str], list[str]]:
    """Returns the images with the same size and pixels in both, and notes on the others."""
    in_a, in_b = (
        {row["image"]: (row["width"], row["height"], row.get("sha256")) for row in results["rows"]}
        for results in (a, b)
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
    a: Mapping[str, Rows], b: Mapping[str, Rows], labels: tuple[str, str], notes: list[str]
) -> list[tuple[str, str]]:
    """Returns pairs of curves of the same name; two single curves make a pair in any case."""
    if len(a) == len(b) == 1:
        return [(next(iter(a)), next(iter(b)))]
    if lonely := sorted(a.keys() ^ b.keys()):
        told = ", ".join(name or "points without a name" for name in lonely)
        notes.append(f"{labels[0]} and {labels[1]} do not both have {told}: not compared")
    return [(name, name) for name in a if name in b]


def _measured(
    rows_a: Rows, rows_b: Rows, metric: str, about: Mapping[str, Any], resamples: int
) -> dict[str, Any]:
    compared, drawn = (rows_a, rows_b, metric, about["better"]), {"seed": 0, "resamples": resamples}
    matched, rate = matched_rate(*compared, **drawn), bootstrap(*compared, bd_rate, **drawn)
    return {**about, "matched": matched, "bd_rate": rate}


def _points_of_sets(results: Results, rows: Rows) -> Rows:
    """Returns metrics of sets at the points of these rows, as rows of one image, the whole set."""
    wanted = {point_of(row) for row in rows}
    rates = {point_of(mean): mean["bpp"] for mean in results["means"]}
    return [
        {**entry, "image": "all", "bpp": rates[key], "values": {entry["metric"]: entry["value"]}}
        for entry in results["sets"]
        if (key := point_of(entry)) in wanted
    ]


def _sets(a: Results, points_a: Rows, points_b: Rows, whole: bool) -> dict[str, dict[str, Any]]:
    """Compares metrics of sets where both were measured over the same patches of all images.

    There is no interval: that would take new distances for each draw of images.
    """
    found = {}
    others = grouped(points_b, itemgetter("metric"))
    for name, of_a in grouped(points_a, itemgetter("metric")).items():
        about, of_b = _described(a["metrics"][name]), others.get(name, [])
        if not whole or any(p["protocol"] != of_a[0]["protocol"] for p in of_a + of_b):
            other = "protocols" if whole else "images"
            found[name] = about | {"not_measured": f"the two have different {other}"}
            continue
        matched = matched_rate(of_a, of_b, name, about["better"], seed=0)
        delta = bd_rate(*(curve(of, name, about["better"]) for of in (of_a, of_b)))
        rate = Interval(delta.value, None, None, 1, delta.reason)
        found[name] = about | {"matched": matched, "bd_rate": rate}
    return found
