"""Results of an evaluation: means of its rows, and both as JSON, CSV and text (docs/evaluation.md).

A value that was not measured is None, with its reason in `row["not_measured"]`. A mean over only
some of the images is None as well, with their number in `mean["measured"]`.
"""

import csv
import io
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from fa_hific_jax.errors import UserError
from fa_hific_jax.writing import write

Results = Mapping[str, Any]
"""Content of results.json: meta, codecs, metrics, rows, means, sets, published."""

PARTS = ("meta", "codecs", "metrics", "rows", "means", "sets", "published")
COSTS = ("bpp", "bpp_estimated", "seconds_encode", "seconds_decode")
"""Columns of a row itself, beside its `values`."""

_RATES = {
    "bpp": {"label": "bpp", "decimals": 4},
    "bpp_estimated": {"label": "est. bpp", "decimals": 4},
}
COLUMNS = {
    "bpp": "bits per pixel: 8 * bytes of the file / pixels",
    "bpp_estimated": "the same rate, as the model's own probabilities predict it",
    "lpips_alex": "distance to the original as people see it, by AlexNet; lower is better",
    "fd_alex": "distance between the set of originals and the decoded set; lower is better",
    "lpips_squeeze": "the same by SqueezeNet",
    "lpips_vgg": "the same by VGG16",
    "fid": "the same by Inception's features",
    "psnr": "accuracy of the pixels, in decibels; higher is better",
    "ms_ssim": "similarity of structure at five scales, at most 1; higher is better",
    "lsd": "log-spectral distance: error of the power at all frequencies; lower is better",
    "band_high": "power error of the finest detail; negative where it is lost, best at 0",
}
"""Columns of the table in a terminal, in its order, with their meanings. More would not fit; all
metrics are in summary.csv and on the page."""

Entry = TypeVar("Entry")
Key = TypeVar("Key", bound=Hashable)

point_of = itemgetter("codec", "point")
"""Returns (codec, point) of a row, a mean or a metric of a set."""


def grouped(entries: Iterable[Entry], key: Callable[[Entry], Key]) -> dict[Key, list[Entry]]:
    """Returns the entries by key, in the order in which the keys first appear."""
    found: dict[Key, list[Entry]] = {}
    for entry in entries:
        found.setdefault(key(entry), []).append(entry)
    return found


def means(rows: Iterable[Mapping[str, Any]], images: int) -> list[dict[str, Any]]:
    """Returns the mean over `images` images of each point, in the order of the rows.

    Every image has the same weight, whatever its size.
    """
    found = []
    for (codec, point), of_point in grouped(rows, point_of).items():
        names = dict.fromkeys(name for row in of_point for name in row["values"])
        mean, measured = {}, {}
        for name in (*COSTS, *names):
            column = (value_of(row, name) for row in of_point)
            there = [float(v) for v in column if v is not None and math.isfinite(v)]
            mean[name] = sum(there) / images if there and len(there) == images else None
            measured[name] = len(there)
        parts = {"values": {name: mean.pop(name) for name in names}, "measured": measured}
        found.append({"codec": codec, "point": point, "images": images} | mean | parts)
    return found


def read_results(path: str | os.PathLike) -> Results:
    """Reads a results.json; raises a UserError if it is missing or holds something else."""
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
    """Writes the content as `plain` JSON, whole or not at all."""
    replace_file(path, json.dumps(plain(content), indent=1, allow_nan=False).encode() + b"\n")


def replace_file(path: str | os.PathLike, data: bytes) -> None:
    """Writes like `writing.write`, but raises a UserError where the operating system refuses."""
    with writing_to(path):
        write(path, data)


@contextmanager
def writing_to(path: str | os.PathLike, remedy: str = "fix that") -> Iterator[None]:
    """Turns an error of the operating system into a UserError with this remedy."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): {remedy}") from error


def plain(value: Any) -> Any:
    """Returns a value in JSON's own types, a named tuple as an object, infinity and NaN as None."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def flat_means(results: Results) -> list[dict[str, Any]]:
    """Returns the means with the metrics of sets, all as entries and as "values" of the mean."""
    values = {point_of(mean): dict(mean["values"]) for mean in results["means"]}
    for entry in results["sets"]:
        values[point_of(entry)][entry["metric"]] = entry["value"]
    return [{**m, **values[point_of(m)], "values": values[point_of(m)]} for m in results["means"]]


def summary_csv(results: Results) -> str:
    """Returns the means and the metrics of sets, one line for each point of each codec.

    Empty cells were not measured; NAME_measured counts the images for which NAME was.
    """
    measured = dict.fromkeys(name for mean in results["means"] for name in mean["measured"])
    pairs = [column for name in measured for column in (name, f"{name}_measured")]
    of_sets = dict.fromkeys(entry["metric"] for entry in results["sets"])
    names, text = ["codec", "point", "images", *pairs, *of_sets], io.StringIO()
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for mean in flat_means(results):
        counts = {f"{name}_measured": mean["measured"].get(name, 0) for name in measured}
        writer.writerow(mean | counts)
    return text.getvalue()


def format_table(results: Results) -> str:
    """Returns the means as aligned plain text; `notes` say what is missing and why."""
    described, names = columns(results)
    lines = [["codec", "point", "images", *(heading(described, name) for name in names)]]
    for mean in flat_means(results):
        cells = [_cell(described, mean, name) for name in names]
        lines.append([*point_of(mean), str(mean["images"]), *cells])
    return f"mean over images\n{aligned(lines)}"


def columns(results: Results) -> tuple[dict[str, Any], list[str]]:
    """Returns (descriptions by name, names of the numbers in the table, in its order)."""
    described, means = _RATES | results["metrics"], flat_means(results)
    known = {name for name in described for m in means if _cell(described, m, name) != "-"}
    return described, [name for name in COLUMNS if name in known | _RATES.keys()]


def _cell(described: Mapping[str, Any], mean: Mapping[str, Any], name: str) -> str:
    measured = mean["measured"].get(name, 0)
    if 0 < measured < mean["images"]:
        return f"{measured} of {mean['images']}"
    return number(mean.get(name), described[name]["decimals"])


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Returns a table as text: the first two columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        [*map(str.ljust, cells[:2], widths), *map(str.rjust, cells[2:], widths[2:])]
        for cells in lines
    )
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def heading(described: Mapping[str, Any], name: str) -> str:
    """Returns the name and unit of a metric, as at the head of a column."""
    return " ".join(filter(None, [described[name]["label"], described[name].get("unit")]))


def value_of(entry: Mapping[str, Any], name: str) -> float | None:
    """Returns a cost or a metric of a row or a mean."""
    return entry[name] if name in COSTS else entry["values"].get(name)


def number(value: float | None, decimals: int, missing: str = "-") -> str:
    """Returns a number as text."""
    return missing if value is None else f"{value:.{decimals}f}"


def notes(results: Results) -> list[str]:
    """Returns a sentence for everything that was skipped or was not measured for all images."""
    metrics, meta, rows = results["metrics"], results["meta"], results["rows"]
    labels = {metric: about["label"] for metric, about in metrics.items()}
    reasons = {about["label"]: about.get("not_measured") for about in metrics.values()}
    for entry in results["sets"]:
        called = labels.get(entry["metric"], entry["metric"])
        reasons[called] = reasons.get(called) or entry["not_measured"]
    reasons |= {about["label"]: about.get("not_measured") for about in results["codecs"].values()}
    by_reason = grouped(filter(reasons.get, reasons), reasons.get)
    found = [f"{', '.join(of)}: not measured: {reason}" for reason, of in by_reason.items()]
    found += [f"{e['image']}: skipped: {e['reason']}" for e in meta.get("skipped", ())]
    failed = [(f"{e['image']}, {e['codec']} {e['point']}", e) for e in meta.get("failed", ())]
    found += [f"{where.rstrip()}: not measured: {e['reason']}" for where, e in failed]
    partly = Counter(each for row in rows for each in row["not_measured"].items())
    return found + [
        f"{labels.get(name, name)}: not measured for {count} of {len(rows)} rows: {reason}"
        for (name, reason), count in partly.items()
        if not metrics.get(name, {}).get("not_measured")
    ]
