"""Numbers of the page: tables of means with footnotes, and the points of the plots."""

import math
from collections.abc import Callable, Container, Iterable, Mapping
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

from fa_hific_jax.evaluation.results import Results, grouped, point_of, value_of

Key = tuple[str, str]  # codec, point
NO_REASON = "no reason recorded"


class Column(NamedTuple):
    label: str
    detail: str  # unit and direction of a metric, protocol of a distance between sets


class Cell(NamedTuple):
    text: str
    note: int | None  # 1 for the first of `Table.notes`


class Line(NamedTuple):
    codec: str
    point: str
    cells: list[Cell]


class Table(NamedTuple):
    columns: list[Column]
    lines: list[Line]
    notes: list[str]  # why a cell holds no mean


def table(results: Results, keys: Container[Key]) -> Table:
    """Returns the means of the points in `keys`, with distances between sets under their protocol.

    Distances measured by different protocols are in different columns. A cell without a number
    says so and refers to the reason.
    """
    columns: dict[Column, Callable[..., tuple[str, str | None]]]
    columns = {Column("bpp", "real files"): partial(_mean_cell, results, "bpp", 4)}
    if any(mean["bpp_estimated"] is not None for mean in results["means"]):
        columns[Column("bpp", "estimated")] = _estimate_cell
    for metric, about in results["metrics"].items():
        if any(row["values"].get(metric) is not None for row in results["rows"]):
            cell = partial(_mean_cell, results, metric, about["decimals"])
            columns[Column(about["label"], direction(about))] = cell
    for (metric, protocol), entries in _distances(results).items():
        about = described(results, metric)
        columns[Column(about["label"], protocol)] = partial(_set_cell, entries, about["decimals"])
    notes: dict[str, int] = {}
    lines = []
    order = list(results["codecs"])
    for mean in sorted(results["means"], key=lambda m: (order.index(m["codec"]), _rate(m))):
        if point_of(mean) in keys:
            found = [cell(mean) for cell in columns.values()]
            cells = [
                Cell(text, notes.setdefault(why, len(notes) + 1) if why else None)
                for text, why in found
            ]
            lines.append(Line(mean["codec"], mean["point"], cells))
    return Table(list(columns), lines, list(notes))


def anchor(results: Results) -> str:
    """Returns the codec to whose rates the others are compared: the first model or first codec."""
    measured = {row["codec"] for row in results["rows"]}
    codecs = [codec for codec in results["codecs"] if codec in measured]
    models = (codec for codec in codecs if results["codecs"][codec]["kind"] == "model")
    return next(models, codecs[0])


def nearest(entries: Iterable[Mapping[str, Any]], bpp: float) -> Mapping[str, Any]:
    """Returns the row or mean whose rate has the ratio to bpp that is nearest to 1."""
    return min(entries, key=lambda entry: abs(math.log(max(entry["bpp"], 1e-9) / max(bpp, 1e-9))))


def near_keys(results: Results) -> set[Key]:
    """Returns all points of models and controls, and of baselines the nearest to the anchor's."""
    rates = [mean["bpp"] for mean in rated(results, anchor(results))]
    near = set()
    for codec, about in results["codecs"].items():
        points, known = [m for m in results["means"] if m["codec"] == codec], rated(results, codec)
        if known and rates and about["kind"] == "baseline":
            points = [nearest(known, rate) for rate in rates]
        near |= {(codec, mean["point"]) for mean in points}
    return near


def rated(results: Results, codec: str) -> list[Mapping[str, Any]]:
    """Returns the means of a codec over all images, in order of rate."""
    means = [m for m in results["means"] if m["codec"] == codec and m["bpp"] is not None]
    return sorted(means, key=itemgetter("bpp"))


def curves(results: Results) -> dict[str, list[dict[str, Any]]]:
    """Returns by metric the plotted points {"codec", "point", "bpp", "value"} in order of rate."""
    means = [mean for codec in results["codecs"] for mean in rated(results, codec)]
    rates = {point_of(mean): mean["bpp"] for mean in means}
    found = [(m, mean, mean["values"].get(m)) for mean in means for m in results["metrics"]]
    found += [(entry["metric"], entry, entry["value"]) for entry in results["sets"]]
    points: dict[str, list[dict[str, Any]]] = {}
    for metric, entry, value in found:
        codec, name = point_of(entry)
        if value is not None and (codec, name) in rates:
            point = {"codec": codec, "point": name, "bpp": rates[codec, name], "value": value}
            points.setdefault(metric, []).append(point)
    return {metric: sorted(p, key=itemgetter("bpp")) for metric, p in points.items()}


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
        "patch": "patches of {0} × {0}",
        "grids": "{} grids",
        "patches": "{:,} patches",
        "features": "{}",
        "weights": "weights {}",
        "note": "{}",
    }
    held = {key: value for key, value in protocol.items() if value not in (None, "")}
    return " · ".join(words.get(key, f"{key} {{}}").format(value) for key, value in held.items())


def _rate(entry: Mapping[str, Any]) -> float:
    return math.inf if entry["bpp"] is None else entry["bpp"]


def _distances(results: Results) -> dict[tuple[str, str], dict[Key, Mapping[str, Any]]]:
    """Returns by (metric, protocol) the entries of the metrics of sets that have any number."""

    def column(entry: Mapping[str, Any]) -> tuple[str, str]:
        return entry["metric"], protocol_text(entry["protocol"])

    measured = grouped((e for e in results["sets"] if e["value"] is not None), column)
    found = {}
    for (metric, protocol), entries in measured.items():
        # An entry without a number may lack the protocol: it stands in every column of its metric.
        lacking = [e for e in results["sets"] if e["metric"] == metric and e["value"] is None]
        found[metric, protocol] = {point_of(entry): entry for entry in lacking + entries}
    return found


def _mean_cell(
    results: Results, name: str, decimals: int, mean: Mapping[str, Any]
) -> tuple[str, str | None]:
    """Returns the text of a mean, and the reason if there is none."""
    value, measured, images = value_of(mean, name), mean["measured"].get(name, 0), mean["images"]
    if value is not None:
        return f"{value:.{decimals}f}", None
    rows, failed = (
        [e for e in entries if point_of(e) == point_of(mean)]
        for entries in (results["rows"], results["meta"].get("failed", ()))
    )
    lacking = [row for row in rows if value_of(row, name) is None]
    reasons = [row["not_measured"].get(name) or NO_REASON for row in lacking]
    if len(rows) < images:
        reasons += [f"{entry['image']}: {entry['reason']}" for entry in failed]
    text = f"{measured} of {images} images" if measured else "not measured"
    return text, "; ".join(dict.fromkeys(reasons)) or NO_REASON


def _estimate_cell(mean: Mapping[str, Any]) -> tuple[str, None]:
    value = mean["bpp_estimated"]
    return "–" if value is None else f"{value:.4f}", None


def _set_cell(
    entries: Mapping[Key, Mapping[str, Any]], decimals: int, mean: Mapping[str, Any]
) -> tuple[str, str | None]:
    entry = entries.get(point_of(mean))
    if entry and entry["value"] is not None:
        return f"{entry['value']:.{decimals}f}", None
    reason = entry["not_measured"] if entry else None
    return "not measured", reason or "not measured by this protocol"
