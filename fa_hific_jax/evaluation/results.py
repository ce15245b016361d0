"""What was measured: rows, their means, both as JSON, as CSV and as text (docs/evaluation.md).

A row is one image through one point of one codec. A value that was not measured is None, with its
reason in `row["not_measured"]`; a mean over some of the images is None as well, with the number of
those in `mean["measured"]`, so that it never stands where a mean over all is expected.
"""

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fa_hific_jax.errors import UserError
from fa_hific_jax.writing import write

Row = dict[str, Any]
Results = dict[str, Any]
"""meta, codecs, metrics, rows, means, sets, published: the content of results.json."""

PARTS = ("meta", "codecs", "metrics", "rows", "means", "sets", "published")
COSTS = ("bpp", "bpp_estimated", "seconds_encode", "seconds_decode")
"""What stands in a row itself, beside its `values`."""

_HEADINGS = {"bpp": ("bpp", 4), "bpp_estimated": ("est. bpp", 4)}
# More would not fit a terminal; all are in summary.csv and on the page.
_TERMINAL = ("psnr", "ms_ssim", "lpips_alex", "lpips_squeeze", "lpips_vgg", "lfd", "band_high")
_TERMINAL_SETS = ("fid", "fd_alex")


def means(rows: Iterable[Mapping[str, Any]], images: int) -> list[dict[str, Any]]:
    """The mean over `images` images of each codec's points, in the order of the rows.

    Every image weighs the same, whatever its size.
    """
    points: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        points.setdefault((row["codec"], row["point"]), []).append(row)
    return [
        {"codec": codec, "point": point, "images": images} | _mean(of_point, images)
        for (codec, point), of_point in points.items()
    ]


def _mean(rows: Sequence[Mapping[str, Any]], images: int) -> dict[str, Any]:
    columns = {name: [row[name] for row in rows] for name in COSTS}
    names = dict.fromkeys(name for row in rows for name in row["values"])
    columns |= {name: [row["values"].get(name) for row in rows] for name in names}
    there = {
        name: [float(v) for v in column if v is not None and math.isfinite(v)]
        for name, column in columns.items()
    }
    found = {n: sum(v) / len(v) if v and len(v) == images else None for n, v in there.items()}
    return {
        **{name: found[name] for name in COSTS},
        "values": {name: found[name] for name in names},
        "measured": {name: len(column) for name, column in there.items()},
    }


def read_results(path: str | os.PathLike) -> Results:
    """The content of a results.json.

    Raises:
      UserError: the file is missing or holds something else.
    """
    try:
        results = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(f"there are no results at {path}: run eval.py first") from None
    except ValueError:
        raise UserError(f"{path} is not JSON: write it again with eval.py") from None
    missing = [p for p in PARTS if p not in results] if isinstance(results, dict) else PARTS
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}: write it again with eval.py")
    return results


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes what `plain` makes of the content, whole or not at all."""
    replace_file(path, json.dumps(plain(content), indent=1, allow_nan=False).encode() + b"\n")


def write_lines(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """As `write_json`, with a line for each entry of a list or dictionary of `content`."""
    parts = []
    for key, value in plain(content).items():
        ends = "{}" if isinstance(value, dict) else "[]"
        named = value.items() if isinstance(value, dict) else [(None, item) for item in value]
        lines = [
            ("" if name is None else f"{json.dumps(name)}: ") + json.dumps(item, allow_nan=False)
            for name, item in named
        ]
        parts.append(f"{json.dumps(key)}: {ends[0]}\n" + ",\n".join(lines) + f"\n{ends[1]}")
    replace_file(path, ("{" + ",\n".join(parts) + "}\n").encode())


def replace_file(path: str | os.PathLike, data: bytes) -> None:
    """Like `writing.write`, but an error of the operating system becomes a UserError."""
    try:
        write(path, data)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): mend that") from error


def plain(value: Any) -> Any:
    """value in JSON's own types: array scalars as Python numbers, non-finite numbers as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def compact(results: Results) -> Results:
    """The results without pictures and places on a disk: what a repository keeps.

    Of rows what was measured, in seven digits; in texts the names of files without their folders.
    """
    kept = ("image", "codec", "point", "width", "height", "bytes", *COSTS, "values", "not_measured")
    rows = [{name: row[name] for name in kept} for row in results["rows"]]
    codecs = {name: _without(about, "settings") for name, about in results["codecs"].items()}
    return _short({**results, "codecs": codecs, "rows": rows})


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"(?<![\w:/.])[/~](?:[^\s/:=,]*/)+", "", value)
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _without(about: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in about.items() if key != name}


def summary_csv(results: Results) -> str:
    """The means and the metrics of sets, a line for each point of each codec.

    Empty cells were not measured; NAME_measured says for how many images NAME was.
    """
    sets, names = _by_point(results["sets"]), _set_names(results)
    per_image = [name for mean in results["means"] for name in mean["values"]]
    columns = [*COSTS, *dict.fromkeys(per_image)]
    header = ["codec", "point", "images"]
    header += [heading for name in columns for heading in (name, f"{name}_measured")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header + names)
    for mean in results["means"]:
        line = [mean["codec"], mean["point"], mean["images"]]
        for name in columns:
            line += [value_of(mean, name), mean["measured"].get(name, 0)]
        of_point = sets.get((mean["codec"], mean["point"]), {})
        writer.writerow(line + [of_point.get(name, {}).get("value") for name in names])
    return text.getvalue()


def format_table(results: Results) -> str:
    """Means as aligned plain text; `notes` say what is missing and why."""
    described, sets = results["metrics"], _by_point(results["sets"])
    taken = [n for n in _TERMINAL if any(m["measured"].get(n) for m in results["means"])]
    of_sets = [n for n in _TERMINAL_SETS if any(_value(of, n) is not None for of in sets.values())]
    columns = [*_HEADINGS, *taken, *of_sets]
    lines = [["codec", "point", "images", *(heading(described, name) for name in columns)]]
    for mean in results["means"]:
        of_point = sets.get((mean["codec"], mean["point"]), {})
        lines.append(
            [mean["codec"], mean["point"], str(mean["images"])]
            + [cell(mean, name, described) for name in (*_HEADINGS, *taken)]
            + [_number(_value(of_point, name), described[name]["decimals"]) for name in of_sets]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join([*map(str.ljust, line[:2], widths[:2]), *map(str.rjust, line[2:], widths[2:])])
        for line in lines
    ]
    return "\n".join(["mean over images", *(line.rstrip() for line in text)])


def heading(described: Mapping[str, Any], name: str) -> str:
    """A metric's name and unit, as at the head of a column."""
    if name in _HEADINGS:
        return _HEADINGS[name][0]
    return " ".join(filter(None, [described[name]["label"], described[name].get("unit")]))


def cell(mean: Mapping[str, Any], name: str, described: Mapping[str, Any]) -> str:
    """A mean as text: "-" where nothing was measured, "5 of 6" where only some images were."""
    measured = mean["measured"].get(name, 0)
    if 0 < measured < mean["images"]:
        return f"{measured} of {mean['images']}"
    decimals = _HEADINGS[name][1] if name in _HEADINGS else described[name]["decimals"]
    return _number(value_of(mean, name), decimals)


def value_of(mean: Mapping[str, Any], name: str) -> float | None:
    """A cost or a metric of a row or a mean."""
    return mean[name] if name in COSTS else mean["values"].get(name)


def notes(results: Results) -> list[str]:
    """A sentence for everything that was not measured, or for some of the images only."""
    reasons = {about["label"]: about["not_measured"] for about in results["metrics"].values()}
    for entry in results["sets"]:
        label = results["metrics"].get(entry["metric"], {"label": entry["metric"]})["label"]
        reasons[label] = reasons.get(label) or entry["not_measured"]
    reasons |= {about["label"]: about["not_measured"] for about in results["codecs"].values()}
    grouped: dict[str, list[str]] = {}
    for label, reason in reasons.items():
        if reason:
            grouped.setdefault(reason, []).append(label)
    found = [f"{', '.join(labels)}: not measured: {reason}" for reason, labels in grouped.items()]
    found += [f"{e['image']}: skipped: {e['reason']}" for e in results["meta"]["skipped"]]
    found += [
        f"{e['image']}, {e['codec']} {e['point']}".rstrip() + f": not measured: {e['reason']}"
        for e in results["meta"]["failed"]
    ]
    return found + _partly(results)


def _partly(results: Results) -> list[str]:
    """Metrics that single images lack, with how many rows and a reason."""
    reasons: dict[tuple[str, str], int] = {}
    for row in results["rows"]:
        for name, reason in row["not_measured"].items():
            if not results["metrics"].get(name, {}).get("not_measured"):
                reasons[name, reason] = reasons.get((name, reason), 0) + 1
    return [
        f"{results['metrics'].get(name, {'label': name})['label']}: not measured for {count} of "
        f"{len(results['rows'])} rows: {reason}"
        for (name, reason), count in reasons.items()
    ]


def _by_point(sets: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in sets:
        found.setdefault((entry["codec"], entry["point"]), {})[entry["metric"]] = entry
    return found


def _set_names(results: Results) -> list[str]:
    return list(dict.fromkeys(entry["metric"] for entry in results["sets"]))


def _value(of_point: Mapping[str, Any], name: str) -> float | None:
    return of_point.get(name, {}).get("value")


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"
