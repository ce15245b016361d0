"""Writes the README's tables and figures from results/*.json, so that they agree with the results.

  python -m benchmarks.readme                              writes tables and figures again
  python -m benchmarks.readme lite=runs/kodak              first stores the results of an evaluation
                                                           as results/lite.json

A table is the text between <!-- results/NAME.json: table --> and <!-- end -->, as eval.py prints
it. The last line of a figure names its results. tests/test_results_as_data.py compares both with
them.
"""

import hashlib
import io
import itertools
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fa_hific_jax.errors import UserError, fail
from fa_hific_jax.evaluation import results as res
from fa_hific_jax.evaluation.points import SAME_SIZE

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
SECTION = re.compile(r"(?s)(<!-- results/(\w+)\.json: table -->\n).*?(<!-- end -->)")
METRICS = ("psnr", "ms_ssim", "lpips_alex")
COLORS = {
    "model": ("#e8590c", "#d6336c"),
    "control": ("#868e96",),
    "baseline": ("#228be6", "#2f9e44", "#12a5b5", "#7950f2"),
}


def main(arguments: list[str]) -> None:
    for argument in arguments:
        name, _, folder = argument.partition("=")
        if not folder:
            raise UserError(f"{argument}: give NAME=FOLDER, the folder of an evaluation")
        keep(name, Path(folder))
    text = README.read_text("utf-8")
    res.replace_file(README, with_results(text).encode())
    for name in named_in(text):
        res.replace_file(figure_of(name), figure(name).encode())


def keep(name: str, folder: Path) -> None:
    """Stores results as results/NAME.json; raises a UserError if they name no commit."""
    results = res.read_results(folder / "results.json")
    if not results["meta"]["commit"]:
        raise UserError(
            f"{folder}/results.json names no commit, so nobody could make it again: "
            "run eval.py in a clone of the repository"
        )
    write_lines(path_of(name), compact(results))


def write_lines(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` as JSON, with one line for each entry of its lists and dictionaries."""
    parts = []
    for key, value in res.plain(content).items():
        ends = "{}" if isinstance(value, dict) else "[]"
        named = value.items() if isinstance(value, dict) else [(None, item) for item in value]
        lines = [
            ("" if name is None else f"{json.dumps(name)}: ") + json.dumps(item, allow_nan=False)
            for name, item in named
        ]
        parts.append(f"{json.dumps(key)}: {ends[0]}\n" + ",\n".join(lines) + f"\n{ends[1]}")
    res.replace_file(path, ("{" + ",\n".join(parts) + "}\n").encode())


def compact(results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of the results that the repository keeps, without pictures and paths.

    Numbers have seven digits. Paths in texts are reduced to file names.
    """
    kept = (
        "image",
        "codec",
        "point",
        "width",
        "height",
        "bytes",
        *res.COSTS,
        "values",
        "not_measured",
    )
    rows = [{name: row[name] for name in kept} for row in results["rows"]]
    codecs = {
        name: {key: value for key, value in about.items() if key != "settings"}
        for name, about in results["codecs"].items()
    }
    return _short({**results, "codecs": codecs, "rows": rows})


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"(?<![\w:/.])[/~](?:[^\s/:=,]*/)+", "", value)
    return float(f"{value:.7g}") if isinstance(value, float) else value


def path_of(name: str) -> Path:
    return ROOT / "results" / f"{name}.json"


def figure_of(name: str) -> Path:
    return ROOT / "docs" / f"{name}_rd.svg"


def named_in(text: str) -> list[str]:
    """Returns the names of the results that a text shows as tables."""
    return [match[2] for match in SECTION.finditer(text)]


def with_results(text: str) -> str:
    """Returns the README's text with its tables made from the results."""

    def section(match: re.Match[str]) -> str:
        table = res.format_table(res.read_results(path_of(match[2])))
        return f"{match[1]}```\n{table}\n```\n{match[3]}"

    return SECTION.sub(section, text)


def origin(name: str) -> str:
    """Returns the last line of a figure, which identifies its results."""
    digest = hashlib.sha256(path_of(name).read_bytes()).hexdigest()
    return f"<!-- results/{name}.json, sha256 {digest} -->\n"


def figure(name: str) -> str:
    """Returns rate-distortion curves as SVG, legible on white and on black."""
    import matplotlib
    from matplotlib.figure import Figure

    results = res.read_results(path_of(name))
    ink = {
        key: "#808890"
        for key in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    }
    style: dict[Any, Any] = {
        "svg.hashsalt": name,
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.grid": True,
        "grid.alpha": 0.2,
    }
    shown = [name for name in METRICS if not results["metrics"][name].get("not_measured")]
    with matplotlib.rc_context(style | ink):
        drawing = Figure(figsize=(4 * len(shown), 3), layout="constrained")
        for axes, metric in zip(drawing.subplots(1, len(shown)), shown, strict=True):
            _draw(axes, results, metric)
            axes.set(xlabel="bits per pixel", ylabel=res.heading(results["metrics"], metric))
        axes.legend(frameon=False)
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        drawing.savefig(file, format="svg", metadata=nothing, transparent=True)
    lines = (line.rstrip() for line in file.getvalue().splitlines())
    return "\n".join(lines) + "\n" + origin(name)


def _draw(axes: Any, results: Mapping[str, Any], metric: str) -> None:
    colors = {kind: itertools.cycle(of_kind) for kind, of_kind in COLORS.items()}
    for codec, about in results["codecs"].items():
        points = sorted(
            (mean["bpp"], mean["values"][metric])
            for mean in results["means"]
            if mean["codec"] == codec and None not in (mean["bpp"], mean["values"].get(metric))
        )
        if points and not codec.endswith(SAME_SIZE):
            color, size = next(colors[about["kind"]]), 4 if about["kind"] == "baseline" else 7
            style: dict[str, Any] = {"color": color, "marker": "o", "markersize": size}
            axes.plot(*zip(*points, strict=True), label=about["label"], linewidth=1.2, **style)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        fail(str(error))
