"""results.json and the pictures beside it as one self-contained HTML page."""

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from itertools import cycle
from pathlib import Path
from typing import Any

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation.report import pictures, tables
from fa_hific_jax.evaluation.results import Results, grouped, notes, point_of, replace_file

SIZE_LIMIT = 20_000_000
"""Limit of the whole file in bytes: mail and chat programs take it, and a phone opens it."""
_RESERVE = 20_000  # bytes for the notes on the pictures, which are known only after these

_COLORS = {
    "model": ("#e8590c", "#d6336c", "#ae3ec9", "#e67700"),
    "control": ("#868e96",),
    "baseline": ("#228be6", "#2f9e44", "#12a5b5", "#7950f2", "#82a11b", "#b0703c", "#5c7cfa"),
}
# plotly's names, and the same in text.
_MARKERS = {
    "circle": "●", "square": "■", "triangle-up": "▲", "diamond": "◆", "triangle-down": "▼",
    "star": "★",
}  # fmt: skip
# Signs of published points in text; `OPEN` in plots.js has the same in the plots.
_OPEN_SIGNS = ("✕", "✚", "✡", "⋈")


def write_report(results: dict[str, Any], folder: Path) -> Path:
    """Writes `folder/report.html` from the content of a results.json, and returns its path.

    The folder holds the pictures and maps that the rows name. The page loads nothing, and stays
    under SIZE_LIMIT bytes (`pictures.DETAILS`). A picture that cannot be read is named on the page
    and left out. Raises a UserError if plotly or Jinja2 is not installed, or there are no rows.
    """
    if not results["rows"]:
        raise UserError("the results hold no rows: evaluate at least one image")
    try:
        import jinja2
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise UserError(
            "the report needs plotly and Jinja2: pip install fa-hific-jax[eval]"
        ) from None
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["direction"] = tables.direction
    template = environment.from_string(asset("report.html.j2"))
    scripts = ("plots.js", "gallery.js", "viewer.js", "report.js")
    fixed = _content(results, folder) | {
        "style": asset("report.css"),
        "stage": asset("stage.html"),
        "library": get_plotlyjs(),
        "script": "".join(map(asset, scripts)),
    }

    def page(shown: pictures.Shown) -> bytes:
        sizes = {
            "pictures, spectra and maps": sum(map(len, shown.images.values())),
            "plotting library": len(fixed["library"]),
            "numbers and small pictures": len(fixed["index"]),
        }
        told = {name: f"{size / 1e6:.1f} MB" for name, size in sizes.items()}
        return template.render(fixed, shown=shown, sizes=told).encode("utf-8", errors="replace")

    bare = len(page(pictures.Shown(pictures.DETAILS[0], {}, [])))
    shown = pictures.fit(results, folder, SIZE_LIMIT - bare - _RESERVE)
    path = folder / "report.html"
    replace_file(path, page(shown))
    return path


def _content(results: Results, folder: Path) -> dict[str, Any]:
    """Returns what the template shows, except pictures and the files that it inlines."""
    images = grouped(enumerate(results["rows"]), lambda each: each[1]["image"])
    looks = {k: zip(cycle(colors), cycle(_MARKERS.items())) for k, colors in _COLORS.items()}
    curves, codecs = tables.curves(results), {}
    for codec, about in results["codecs"].items():
        color, (marker, sign) = next(looks[about["kind"]])
        named = {"label": about["label"], "kind": about["kind"]}
        codecs[codec] = named | {"color": color, "marker": marker, "sign": sign}
    index = {
        "codecs": codecs,
        "metrics": {m: tables.described(results, m) for m in (*results["metrics"], *curves)},
        "published": results["published"],
        "anchor": tables.anchor(results),
        "curves": curves,
        "images": [
            {
                "name": name,
                "width": rows[0][1]["width"],
                "height": rows[0][1]["height"],
                "thumbnail": pictures.thumbnail(folder, name),
                "rows": {i: _row(results["metrics"], row) for i, row in rows},
            }
            for name, rows in images.items()
        ],
    }
    models = [look["label"] for look in codecs.values() if look["kind"] == "model"]
    meta = {k: v for k, v in results["meta"].items() if v not in (None, "", [], {})}
    return index | {
        "title": " · ".join(models) or "Codecs compared",
        "names": list(images),
        "about": results["codecs"],
        "near": tables.table(results, tables.near_keys(results)),
        "every": tables.table(results, set(map(point_of, results["means"]))),
        "notes": notes(results),
        "open_signs": _OPEN_SIGNS,
        "settings": {k: v if isinstance(v, str) else json.dumps(v) for k, v in meta.items()},
        "index": pictures.script_json(index),
    }


def _row(metrics: Iterable[str], row: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: row[name] for name in ("codec", "point", "bpp", "not_measured")}
    values = {metric: row["values"].get(metric) for metric in metrics}
    rounded = {metric: v and float(f"{v:.7g}") for metric, v in values.items()}
    return found | {"label": row["point"] or row["setting"], "values": rounded}


def asset(name: str) -> str:
    """Returns the text of a file beside this one: a style, a script or a part of a page."""
    return resources.files("fa_hific_jax.evaluation.report").joinpath(name).read_text("utf-8")
