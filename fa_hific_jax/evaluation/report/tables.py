"""Numbers of the page: tables of means with footnotes, and the points of the plots."""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from fa_hific_jax.evaluation import results as res
from fa_hific_jax.evaluation.results import Results, number, point_of

Key = tuple[str, str]  # codec, point
Mean = Mapping[str, Any]
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
    means = [mean for mean in ordered(results) if point_of(mean) in keys]
    # Texts of the means by column, each with the reason if there is no number.
    columns: dict[Column, Sequence[tuple[str, str | None]]] = {}
    columns[Column("bpp", "real files")] = [_mean_cell(results, "bpp", 4, m) for m in means]
    if any(mean["bpp_estimated"] is not None for mean in results["means"]):
        estimated = [(number(mean["bpp_estimated"], 4, "–"), None) for mean in means]
        columns[Column("bpp", "estimated")] = estimated
    for metric, about in results["metrics"].items():
        if any(row["values"].get(metric) is not None for row in results["rows"]):
            cells = [_mean_cell(results, metric, about["decimals"], mean) for mean in means]
            columns[Column(about["label"], direction(about))] = cells
    there = (entry for entry in results["sets"] if entry["value"] is not None)
    by_column = res.grouped(there, lambda e: (e["metric"], protocol_text(e["protocol"])))
    for (metric, protocol), entries in by_column.items():
        about = described(results, metric)
        # An entry without a number may lack the protocol: it stands in every column of its metric.
        lacking = [e for e in results["sets"] if e["metric"] == metric and e["value"] is None]
        by_point = {point_of(entry): entry for entry in lacking + entries}
        cells: list[tuple[str, str | None]] = []
        for entry in (by_point.get(point_of(mean), {}) for mean in means):
            value, reason = entry.get("value"), entry.get("not_measured")
            text = number(value, about["decimals"], "not measured")
            why = (reason or "not measured by this protocol") if value is None else None
            cells.append((text, why))
        columns[Column(about["label"], protocol)] = cells
    lines, notes = [], {}
    for mean, *cells in zip(means, *columns.values(), strict=True):
        found = []
        for text, why in cells:
            found.append(Cell(text, notes.setdefault(why, len(notes) + 1) if why else None))
        lines.append(Line(mean["codec"], mean["point"], found))
    return Table(list(columns), lines, list(notes))


def anchor(results: Results) -> str:
    """Returns the codec to whose rates the others are compared: the first model or first codec."""
    measured = {row["codec"] for row in results["rows"]}
    codecs = {codec: about["kind"] for codec, about in results["codecs"].items()}
    return min(measured, key=lambda codec: (codecs[codec] != "model", list(codecs).index(codec)))


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
    found: dict[str, list[dict[str, Any]]] = {metric: [] for metric in metrics}
    rated = (mean for mean in ordered(results) if mean["bpp"] is not None)
    for mean in sorted(rated, key=itemgetter("bpp")):
        point = {name: mean[name] for name in ("codec", "point", "bpp")}
        for metric in found:
            if (value := mean["values"].get(metric)) is not None:
                found[metric].append(point | {"value": value})
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
        "patch": "patches of {0} × {0}",
        "grids": "{} grids",
        "patches": "{:,} patches",
        "features": "{}",
        "weights": "weights {}",
        "note": "{}",
    }
    held = {key: value for key, value in protocol.items() if value not in (None, "")}
    return " · ".join(words.get(key, f"{key} {{}}").format(value) for key, value in held.items())


def _mean_cell(results: Results, name: str, decimals: int, mean: Mean) -> tuple[str, str | None]:
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
