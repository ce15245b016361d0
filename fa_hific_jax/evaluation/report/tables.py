"""Numbers of the page: tables of means with footnotes, and the points of the plots."""

import math
from collections.abc import Container, Iterable, Mapping
from operator import itemgetter
from typing import Any

from fa_hific_jax.evaluation import results as res
from fa_hific_jax.evaluation.results import Results, number, point_of

Mean = Mapping[str, Any]
Text = tuple[str, str | None]
"""Text of a cell, and the reason if it holds no number."""
NO_REASON = "no reason recorded"


def table(results: Results, keys: Container[tuple[str, str]]) -> dict[str, list[Any]]:
    """Returns the means of the points (codec, point) in `keys`, each protocol in its own columns.

    "columns" are (label, unit and direction or protocol), "lines" (codec, point, cells), "notes"
    reasons. A cell is (text, None), or (text, number of its note from 1) if it holds no number.
    """
    means = [mean for mean in ordered(results) if point_of(mean) in keys]
    columns = {("bpp", "real files"): [_mean_text(results, "bpp", 4, m) for m in means]}
    if any(mean["bpp_estimated"] is not None for mean in results["means"]):
        columns["bpp", "estimated"] = [(number(m["bpp_estimated"], 4, "–"), None) for m in means]
    for metric, about in results["metrics"].items():
        if any(row["values"].get(metric) is not None for row in results["rows"]):
            texts = [_mean_text(results, metric, about["decimals"], mean) for mean in means]
            columns[about["label"], direction(about)] = texts
    for entry in results["sets"]:
        if entry["value"] is not None:
            metric, protocol = entry["metric"], protocol_text(entry["protocol"])
            texts = [_set_text(results, metric, protocol, mean) for mean in means]
            columns[described(results, metric)["label"], protocol] = texts
    lines = list(zip(*columns.values(), strict=True))
    notes = list(dict.fromkeys(why for texts in lines for _, why in texts if why))
    cells = [[(text, notes.index(why) + 1 if why else None) for text, why in of] for of in lines]
    places = [(*point_of(mean), found) for mean, found in zip(means, cells, strict=True)]
    return {"columns": list(columns), "lines": places, "notes": notes}


def _mean_text(results: Results, name: str, decimals: int, mean: Mean) -> Text:
    measured, images = mean["measured"].get(name, 0), mean["images"]
    if mean.get(name) is not None:
        return number(mean[name], decimals), None
    rows, failed = (
        [e for e in entries if point_of(e) == point_of(mean)]
        for entries in (results["rows"], results["meta"].get("failed", ()))
    )
    lacking = [row for row in rows if res.value_of(row, name) is None]
    reasons = [row["not_measured"].get(name) or NO_REASON for row in lacking]
    if len(rows) < images:
        reasons += [f"{entry['image']}: {entry['reason']}" for entry in failed]
    text = f"{measured} of {images} images" if measured else "not measured"
    return text, "; ".join(dict.fromkeys(reasons)) or NO_REASON


def _set_text(results: Results, metric: str, protocol: str, mean: Mean) -> Text:
    reason = None
    for entry in results["sets"]:
        if entry["metric"] != metric or point_of(entry) != point_of(mean):
            continue
        # An entry without a number may lack the protocol: it stands in every column of its metric.
        if entry["value"] is None:
            reason = entry["not_measured"]
        elif protocol_text(entry["protocol"]) == protocol:
            return number(entry["value"], described(results, metric)["decimals"]), None
    return "not measured", reason or "not measured by this protocol"


def anchor(results: Results) -> str:
    """Returns the codec to whose rates the others are compared: the first model or first codec."""
    measured = {row["codec"] for row in results["rows"]}
    found = [codec for codec in results["codecs"] if codec in measured]
    return min(found, key=lambda codec: results["codecs"][codec]["kind"] != "model")


def nearest(entries: Iterable[Mapping[str, Any]], bpp: float) -> Mapping[str, Any]:
    """Returns the row or mean whose rate has the ratio to bpp that is nearest to 1."""
    return min(entries, key=lambda entry: abs(math.log(max(entry["bpp"], 1e-9) / max(bpp, 1e-9))))


def near_keys(results: Results) -> set[tuple[str, str]]:
    """Returns all points of models and controls, and of baselines the nearest to the anchor's."""
    rates = [mean["bpp"] for mean in rated(results, anchor(results))]
    near = set()
    for codec, about in results["codecs"].items():
        points, known = [m for m in results["means"] if m["codec"] == codec], rated(results, codec)
        if known and rates and about["kind"] == "baseline":
            points = [nearest(known, rate) for rate in rates]
        near |= set(map(point_of, points))
    return near


def ordered(results: Results) -> list[Mean]:
    """Returns the flat means by codec, then in order of rate, those without a rate last."""
    order = list(results["codecs"])
    return sorted(
        res.flat_means(results), key=lambda m: (order.index(m["codec"]), m["bpp"] is None, m["bpp"])
    )


def rated(results: Results, codec: str) -> list[Mean]:
    """Returns the means of a codec over all images, in order of rate."""
    return [m for m in ordered(results) if m["codec"] == codec and m["bpp"] is not None]


def curves(results: Results) -> dict[str, list[dict[str, Any]]]:
    """Returns by metric the plotted points {"codec", "point", "bpp", "value"} in order of rate."""
    metrics = [*results["metrics"], *(entry["metric"] for entry in results["sets"])]
    means = sorted((m for m in ordered(results) if m["bpp"] is not None), key=itemgetter("bpp"))
    found = {
        metric: [
            {"codec": m["codec"], "point": m["point"], "bpp": m["bpp"], "value": m[metric]}
            for m in means
            if m["values"].get(metric) is not None
        ]
        for metric in metrics
    }
    return {metric: points for metric, points in found.items() if points}


def described(results: Results, metric: str) -> dict[str, Any]:
    """Returns the description of a metric, with defaults for what the results do not say."""
    unknown = {"label": metric, "unit": "", "better": "lower", "decimals": 4, "reference": ""}
    return unknown | results["metrics"].get(metric, {})


def direction(about: Mapping[str, Any]) -> str:
    """Returns the unit of a metric and which way is better."""
    way = "0 is best" if about["better"] == "zero" else f"{about['better']} is better"
    return f"{about['unit']}, {way}" if about.get("unit") else way


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """Returns the protocol of a distance between sets in words."""
    words = {
        "patch": "patches of {0} × {0}", "grids": "{} grids", "patches": "{:,} patches",
        "features": "{}", "weights": "weights {}", "note": "{}",
    }  # fmt: skip
    held = {key: value for key, value in protocol.items() if value not in (None, "")}
    return " · ".join(words.get(key, f"{key} {{}}").format(value) for key, value in held.items())
