"""Two evaluations against each other at equal rate: which model wins on which image."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation.rate_distortion import (
    Interval,
    Matched,
    bd_rate,
    bootstrap,
    curve,
    families,
    matched_rate,
)
from fa_hific_jax.evaluation.rate_distortion.bootstrap import RESAMPLES

Results = Mapping[str, Any]
Rows = list[Mapping[str, Any]]

_ABOUT = ("label", "unit", "better", "decimals")


def compare(
    a: Results,
    b: Results,
    names: tuple[str, str] = ("A", "B"),
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Compares every model of `a` with every model of `b`, on the images that both have.

    Args:
      a, b: contents of two results.json.
      names: what to call them, such as their folders.
      seed, resamples: of the intervals, as in `bootstrap`.

    Returns:
      {"names", "resamples", "images": names of those compared, "notes": sentences on what was left
      out, "pairs": [{"a", "b": labels, "metrics": {id: {"label", "unit", "better", "decimals",
      "matched": {"images", "mean", "wins", "not_measured"}, "bd_rate": an `Interval`}},
      "sets": the same of metrics of whole sets}]}; differences are b minus a.

    Raises:
      UserError: they share no image, or one of them has no model.
    """
    images, notes = _common_images(a, b, names)
    whole, drawn = not notes, {"seed": seed, "resamples": resamples}
    chosen = [_rows_of_models(results, images) for results in (a, b)]
    for rows, name in zip(chosen, names, strict=True):
        if not rows:
            raise UserError(f"{name} has no measured rows of a model: evaluate one there")
    metrics = _common_metrics(a, b, notes)
    pairs = []
    for codec_a, codec_b in itertools.product(*chosen):
        labels = (a["codecs"][codec_a]["label"], b["codecs"][codec_b]["label"])
        curves = families(chosen[0][codec_a]), families(chosen[1][codec_b])
        for family in _same_families(*curves, labels, notes):
            rows = curves[0][family[0]], curves[1][family[1]]
            points = _points_of_sets(a, rows[0]), _points_of_sets(b, rows[1])
            measured = {
                name: {**about, **_entry(*rows, name, about["better"], **drawn)}
                for name, about in metrics.items()
            }
            called = [", ".join(filter(None, pair)) for pair in zip(labels, family, strict=True)]
            sets = _sets(a, *points, whole)
            pairs.append({"a": called[0], "b": called[1], "metrics": measured, "sets": sets})
    return {
        "names": list(names),
        "resamples": resamples,
        "images": sorted(images),
        "notes": notes,
        "pairs": pairs,
    }


def _common_images(a: Results, b: Results, names: Sequence[str]) -> tuple[set[str], list[str]]:
    found = [{row["image"]: _identity(row) for row in results["rows"]} for results in (a, b)]
    common = {name for name, identity in found[0].items() if found[1].get(name) == identity}
    if not common:
        raise UserError(f"{names[0]} and {names[1]} share no image: evaluate both on the same ones")
    notes = []
    for one, other, name in ((*found, names[0]), (*reversed(found), names[1])):
        if missing := sorted(set(one) - common):
            told = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            different = " or another picture" if set(missing) & set(other) else ""
            notes.append(f"{len(missing)} images are in {name} only{different}: {told}")
    return common, notes


def _identity(row: Mapping[str, Any]) -> tuple[int, int, str | None]:
    """Returns what two images of one name share if they are the same."""
    return row["width"], row["height"], row.get("sha256")


def _rows_of_models(results: Results, images: set[str]) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for row in results["rows"]:
        if row["image"] in images and results["codecs"][row["codec"]]["kind"] == "model":
            found.setdefault(row["codec"], []).append(row)
    return found


def _common_metrics(a: Results, b: Results, notes: list[str]) -> dict[str, Mapping[str, Any]]:
    """Returns the metrics of single images that both have measured in the same way."""
    common: dict[str, Mapping[str, Any]] = {}
    per_image = {name for results in (a, b) for row in results["rows"] for name in row["values"]}
    for name in (name for name in a["metrics"] if name in per_image & b["metrics"].keys()):
        one, other = a["metrics"][name], b["metrics"][name]
        if reason := one.get("not_measured") or other.get("not_measured"):
            notes.append(f"{one['label']}: not measured: {reason}")
        elif one.get("reference") != other.get("reference"):
            notes.append(f"{one['label']}: not compared: the two were defined differently")
        else:
            common[name] = {key: one[key] for key in _ABOUT}
    return common


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


def _entry(rows_a: Rows, rows_b: Rows, metric: str, better: str, **drawn: int) -> dict[str, Any]:
    matched = matched_rate(rows_a, rows_b, metric, better, **drawn)
    interval = bootstrap(rows_a, rows_b, metric, better, bd_rate, **drawn)
    return {"matched": _plain(matched), "bd_rate": interval._asdict()}


def _plain(matched: Matched) -> dict[str, Any]:
    images = [{**match._asdict(), "bpp": list(match.bpp)} for match in matched.images]
    return {**matched._asdict(), "images": images, "mean": matched.mean._asdict()}


def _points_of_sets(results: Results, rows: Rows) -> Rows:
    """Returns metrics of sets at the points of these rows, as rows of one image, the whole set."""
    wanted = {(row["codec"], row["point"]) for row in rows}
    rates = {(mean["codec"], mean["point"]): mean["bpp"] for mean in results["means"]}
    return [
        {**entry, "image": "all", "bpp": rates[key], "values": {entry["metric"]: entry["value"]}}
        for entry in results["sets"]
        if (key := (entry["codec"], entry["point"])) in wanted
    ]


def _sets(a: Results, points_a: Rows, points_b: Rows, whole: bool) -> dict[str, dict[str, Any]]:
    """Compares metrics of sets where both were measured over the same patches of all images.

    There is no interval: that would take new distances for each draw of images.
    """
    found = {}
    for name in dict.fromkeys(point["metric"] for point in points_a):
        about = {key: a["metrics"][name][key] for key in _ABOUT}
        of_a, of_b = ([p for p in points if p["metric"] == name] for points in (points_a, points_b))
        if not whole or any(p["protocol"] != of_a[0]["protocol"] for p in of_a + of_b):
            other = "protocols" if whole else "images"
            found[name] = {**about, "not_measured": f"the two have different {other}"}
            continue
        matched = matched_rate(of_a, of_b, name, about["better"], seed=0)
        delta = bd_rate(*(curve(of, name, about["better"]) for of in (of_a, of_b)))
        interval = Interval(delta.value, None, None, 1, delta.reason)
        found[name] = {**about, "matched": _plain(matched), "bd_rate": interval._asdict()}
    return found
