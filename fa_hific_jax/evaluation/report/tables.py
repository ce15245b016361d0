"""The numbers of the page: tables of means with footnotes, and the points of the plots."""

import math
from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple

Results = Mapping[str, Any]
Key = tuple[str, str]  # codec, point


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


def number(value: Any) -> float | None:
    """value as a float; None where it is missing or not finite."""
    return None if value is None or not math.isfinite(value) else float(value)


def anchor(results: Results) -> str:
    """The codec to whose rates others are compared: the first model, else the first codec."""
    measured = {row["codec"] for row in results["rows"]}
    codecs = [codec for codec in results["codecs"] if codec in measured]
    models = (codec for codec in codecs if results["codecs"][codec]["kind"] == "model")
    return next(models, codecs[0])


def nearest(entries: Iterable[Mapping[str, Any]], bpp: float) -> Mapping[str, Any]:
    """The row or mean whose rate is nearest to bpp, as a ratio."""
    return min(entries, key=lambda entry: abs(math.log(max(entry["bpp"], 1e-9) / max(bpp, 1e-9))))


def table(results: Results, keys: Container[Key]) -> Table:
    """Means of the points in `keys`, and distances between sets beside their protocol.

    Distances measured by different protocols stand in different columns. A cell without a number
    says so and refers to the reason.
    """
    metrics = {m: d for m, d in results["metrics"].items() if _measured(results, m)}
    estimated = any(number(mean["bpp_estimated"]) is not None for mean in results["means"])
    distances = _distances(results)
    columns = [Column("bpp", "real files"), Column("bpp", "estimated")][: 1 + estimated]
    columns += [Column(d["label"], direction(d)) for d in metrics.values()]
    columns += [Column(metric_of_set(results, m)["label"], protocol) for m, protocol in distances]
    notes: dict[str, int] = {}
    lines = []
    for mean in _in_order(results):
        key = (mean["codec"], mean["point"])
        if key not in keys:
            continue
        cells = [_rate_cell(results, mean, notes)]
        if estimated:
            cells.append(Cell(_text(mean["bpp_estimated"], 4), None))
        cells += [_mean_cell(results, mean, metric, notes) for metric in metrics]
        cells += [_set_cell(results, c[0], of.get(key), notes) for c, of in distances.items()]
        lines.append(Line(*key, cells))
    return Table(columns, lines, list(notes))


def absent(results: Results) -> list[tuple[str, str]]:
    """(metric, reason) of what no image and no set has a number of."""
    sets, found = results.get("sets", ()), {}
    measured = {metric for metric, _ in _distances(results)}
    for entry in sets:
        if entry["metric"] not in measured:
            found.setdefault(
                metric_of_set(results, entry["metric"])["label"], entry["not_measured"]
            )
    of_sets = {metric_of_set(results, entry["metric"])["label"] for entry in sets}
    for metric, about in results["metrics"].items():
        if not _measured(results, metric) and about["label"] not in of_sets:
            reasons = (row["not_measured"].get(metric) for row in results["rows"])
            found[about["label"]] = about.get("not_measured") or next(filter(None, reasons), None)
    return [(label, reason or "no reason recorded") for label, reason in found.items()]


def near_keys(results: Results) -> set[Key]:
    """All points of models and controls; of baselines those nearest in bpp to the anchor's."""
    rates = [mean["bpp"] for mean in rated(results, anchor(results))]
    near = set()
    for codec, about in results["codecs"].items():
        points, known = [m for m in results["means"] if m["codec"] == codec], rated(results, codec)
        if known and rates and about["kind"] == "baseline":
            points = [nearest(known, rate) for rate in rates]
        near |= {(codec, mean["point"]) for mean in points}
    return near


def rated(results: Results, codec: str) -> list[Mapping[str, Any]]:
    """The means of a codec in order of rate, without those of which some image has no file."""
    means = [m for m in results["means"] if m["codec"] == codec and number(m["bpp"]) is not None]
    return sorted(means, key=lambda mean: mean["bpp"])


def curves(results: Results) -> dict[str, list[dict[str, Any]]]:
    """metric -> the plotted points, {"codec", "point", "bpp", "value"}, in order of rate."""
    points: dict[str, list[dict[str, Any]]] = {}
    means = [mean for codec in results["codecs"] for mean in rated(results, codec)]
    rates = {(mean["codec"], mean["point"]): mean["bpp"] for mean in means}
    found = [(m, mean, mean["values"].get(m)) for mean in means for m in results["metrics"]]
    found += [(entry["metric"], entry, entry["value"]) for entry in results.get("sets", ())]
    for metric, entry, value in found:
        key = (entry["codec"], entry["point"])
        if number(value) is not None and key in rates:
            point = {"codec": key[0], "point": key[1], "bpp": rates[key], "value": float(value)}
            points.setdefault(metric, []).append(point)
    return {metric: sorted(p, key=lambda point: point["bpp"]) for metric, p in points.items()}


def metric_of_set(results: Results, metric: str) -> dict[str, Any]:
    """The description of a distance between sets, listed under "fd_alex" or "FD-Alex"."""
    listed = results["metrics"]
    about = listed.get(metric) or listed.get(metric.lower().replace("-", "_")) or {}
    unlisted = {"label": metric, "unit": "", "better": "lower", "decimals": 4, "reference": ""}
    return unlisted | dict(about)


def direction(about: Mapping[str, Any]) -> str:
    """Unit of a metric and which way is better."""
    way = "0 is best" if about["better"] == "zero" else f"{about['better']} is better"
    return f"{about['unit']}, {way}" if about.get("unit") else way


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """The protocol of a distance between sets in words."""
    words = {
        "patch": "patches of {0} × {0}",
        "grids": "{} grids",
        "patches": "{:,} patches",
        "features": "{}",
        "weights": "weights {}",
        "note": "{}",
    }
    held = {k: v for k, v in protocol.items() if v is not None and v != ""}
    return " · ".join(words.get(key, f"{key} {{}}").format(value) for key, value in held.items())


def _in_order(results: Results) -> list[Mapping[str, Any]]:
    order = list(results["codecs"])

    def rank(mean: Mapping[str, Any]) -> tuple[int, float]:
        bpp = number(mean["bpp"])
        return order.index(mean["codec"]), math.inf if bpp is None else bpp

    return sorted(results["means"], key=rank)


def _measured(results: Results, metric: str) -> bool:
    return any(number(row["values"].get(metric)) is not None for row in results["rows"])


def _text(value: Any, decimals: int) -> str:
    found = number(value)
    return "–" if found is None else f"{found:.{decimals}f}"


def _distances(results: Results) -> dict[tuple[str, str], dict[Key, Mapping[str, Any]]]:
    """(metric, protocol) -> entries by point, of the metrics of sets that have any number."""
    found: dict[tuple[str, str], dict[Key, Mapping[str, Any]]] = {}
    for entry in results.get("sets", ()):
        if number(entry["value"]) is not None:
            column = (entry["metric"], protocol_text(entry["protocol"]))
            found.setdefault(column, {})[entry["codec"], entry["point"]] = entry
    for (metric, _), entries in found.items():
        for entry in results["sets"]:
            if entry["metric"] == metric and number(entry["value"]) is None:
                entries.setdefault((entry["codec"], entry["point"]), entry)
    return found


def _rate_cell(results: Results, mean: Mapping[str, Any], notes: dict[str, int]) -> Cell:
    if number(mean["bpp"]) is not None:
        return Cell(_text(mean["bpp"], 4), None)
    rows = len(_of_point(results["rows"], mean))
    return Cell(f"{rows} of {mean['images']} images", _note(_failures(results, mean), notes))


def _mean_cell(
    results: Results, mean: Mapping[str, Any], metric: str, notes: dict[str, int]
) -> Cell:
    value, images = number(mean["values"].get(metric)), mean["images"]
    measured = mean["measured"].get(metric, 0)
    if value is not None and measured == images:
        return Cell(f"{value:.{results['metrics'][metric]['decimals']}f}", None)
    rows = _of_point(results["rows"], mean)
    lacking = [row for row in rows if number(row["values"].get(metric)) is None]
    reasons = [row["not_measured"].get(metric) or "no reason recorded" for row in lacking]
    if len(rows) < images:
        reasons.append(_failures(results, mean))
    text = f"{measured} of {images} images" if measured else "not measured"
    return Cell(text, _note("; ".join(dict.fromkeys(reasons)) or "no reason recorded", notes))


def _of_point(entries: Iterable[Mapping[str, Any]], mean: Mapping[str, Any]) -> list[Any]:
    return [e for e in entries if e["codec"] == mean["codec"] and e["point"] == mean["point"]]


def _failures(results: Results, mean: Mapping[str, Any]) -> str:
    failed = _of_point(results["meta"].get("failed", ()), mean)
    reasons = dict.fromkeys(f"{entry['image']}: {entry['reason']}" for entry in failed)
    return "; ".join(reasons) or "some images were not coded"


def _set_cell(
    results: Results, metric: str, entry: Mapping[str, Any] | None, notes: dict[str, int]
) -> Cell:
    if entry and number(entry["value"]) is not None:
        return Cell(_text(entry["value"], metric_of_set(results, metric)["decimals"]), None)
    reason = entry["not_measured"] if entry else None
    reason = reason or "not measured by this protocol"
    return Cell("not measured", _note(reason, notes))


def _note(reason: str, notes: dict[str, int]) -> int:
    return notes.setdefault(reason, len(notes) + 1)
