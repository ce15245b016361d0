"""results.json and the pictures beside it as one self-contained HTML page."""

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation.report import pictures, tables
from fa_hific_jax.evaluation.report.tables import Results, number
from fa_hific_jax.evaluation.results import replace_file

# Of the whole file: what mail and chat programs still take, and a phone still opens.
SIZE_LIMIT = 20_000_000
# For what is only known when the pictures are: notes on them, and the numbers in the notes.
_RESERVE = 20_000

_COLOURS = {
    "model": ("#e8590c", "#d6336c", "#ae3ec9", "#e67700"),
    "control": ("#868e96",),
    "baseline": ("#228be6", "#2f9e44", "#12a5b5", "#7950f2", "#82a11b", "#b0703c", "#5c7cfa"),
}
# plotly's names, and the same in text.
_MARKERS = (
    ("circle", "●"),
    ("square", "■"),
    ("triangle-up", "▲"),
    ("diamond", "◆"),
    ("triangle-down", "▼"),
    ("star", "★"),
)


_SCRIPTS = ("plots.js", "gallery.js", "viewer.js", "report.js")

# Of published points, as `OPEN` in plots.js.
_OPEN_SIGNS = ("✕", "✚", "✡", "⋈")


class Look(NamedTuple):
    label: str
    kind: str
    colour: str  # legible on white and on black
    marker: str  # plotly's
    sign: str  # the same in text


def write_report(results: dict[str, Any], folder: Path) -> Path:
    """Writes `folder/report.html` and returns its path.

    The page holds its pictures, its script and the plotting library, and loads nothing. It stays
    under SIZE_LIMIT bytes by showing fewer pictures, then by coding them with loss, then by making
    them smaller, and says which. A picture that cannot be read is named on the page and left out.

    Args:
      results: content of a results.json (docs/evaluation.md).
      folder: holds `originals/<image>.png` and, under `row["file"]` and `row["bits"]`, the
        reconstructions and the maps of bits.

    Raises:
      UserError: plotly or Jinja2 is not installed, or there are no rows.
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
    template = environment.from_string(_asset("report.html.j2"))
    fixed = _content(results, folder) | {
        "style": _asset("report.css"),
        "library": get_plotlyjs(),
        "script": "".join(map(_asset, _SCRIPTS)),
    }
    nothing = pictures.Shown(pictures.PLANS[0], {}, [])
    bare = len(_encoded(template.render(fixed, **_shown(nothing, fixed))))
    shown = pictures.fit(results, folder, SIZE_LIMIT - bare - _RESERVE)
    path = folder / "report.html"
    replace_file(path, _encoded(template.render(fixed, **_shown(shown, fixed))))
    return path


def looks(codecs: Mapping[str, Mapping[str, Any]]) -> dict[str, Look]:
    """Name, colour and marker of each codec, the same all over the page."""
    found, counts = {}, dict.fromkeys(_COLOURS, 0)
    for codec, about in codecs.items():
        kind = about["kind"]
        colour = _COLOURS[kind][counts[kind] % len(_COLOURS[kind])]
        marker = _MARKERS[counts[kind] % len(_MARKERS)]
        counts[kind] += 1
        found[codec] = Look(about["label"], kind, colour, *marker)
    return found


def _content(results: Results, folder: Path) -> dict[str, Any]:
    """What the template shows apart from the pictures and what it inlines."""
    names = list(dict.fromkeys(row["image"] for row in results["rows"]))
    plots = tables.curves(results)
    described = dict(results["metrics"])
    described |= {metric: tables.metric_of_set(results, metric) for metric in plots}
    codecs = looks(results["codecs"])
    index = {
        "anchor": tables.anchor(results),
        "codecs": {codec: look._asdict() for codec, look in codecs.items()},
        "metrics": described,
        "curves": plots,
        "published": results.get("published", []),
        "images": [_image(results, folder, name) for name in names],
    }
    models = [look.label for look in codecs.values() if look.kind == "model"]
    return {
        "title": " · ".join(models) or "Codecs compared",
        "names": names,
        "codecs": codecs,
        "about": results["codecs"],
        "near": tables.table(results, tables.near_keys(results)),
        "every": tables.table(results, {(m["codec"], m["point"]) for m in results["means"]}),
        "absent": tables.absent(results),
        "metrics": described,
        "plots": plots,
        "published": results.get("published", []),
        "open_signs": _OPEN_SIGNS,
        "problems": _problems(results),
        "settings": _settings(results["meta"]),
        "index": pictures.script_json(index),
    }


def _image(results: Results, folder: Path, name: str) -> dict[str, Any]:
    """An image and its rows as the script reads them; the key of a row is its place in results."""
    rows = {i: row for i, row in enumerate(results["rows"]) if row["image"] == name}
    first = next(iter(rows.values()))
    return {
        "name": name,
        "width": first["width"],
        "height": first["height"],
        "thumbnail": pictures.thumbnail(folder, name),
        "rows": {i: _row(results, row) for i, row in rows.items()},
    }


def _row(results: Results, row: Mapping[str, Any]) -> dict[str, Any]:
    values = {metric: number(row["values"].get(metric)) for metric in results["metrics"]}
    return {
        "codec": row["codec"],
        "point": row["point"],
        "label": row["point"] or row["setting"],
        "bpp": row["bpp"],
        "values": {metric: v and float(f"{v:.7g}") for metric, v in values.items()},
        "not_measured": row["not_measured"],
    }


def _problems(results: Results) -> list[str]:
    """Images and codecs without numbers, each with its reason."""
    meta = results["meta"]
    found = [
        f"{about['label']}: not measured: {about['not_measured']}"
        for about in results["codecs"].values()
        if about.get("not_measured")
    ]
    found += [f"{e['image']}: skipped: {e['reason']}" for e in meta.get("skipped", ())]
    return found + [
        f"{e['image']}, {e['codec']} {e['point']}: not measured: {e['reason']}"
        for e in meta.get("failed", ())
    ]


def _settings(meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    held = {key: value for key, value in meta.items() if value not in (None, "", [], {})}
    return [(k, v if isinstance(v, str) else json.dumps(v)) for k, v in held.items()]


def _shown(shown: pictures.Shown, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """What the template says of the pictures, and where the bytes of the page are."""
    sizes = {
        "pictures, spectra and maps": sum(map(len, shown.images.values())),
        "plotting library": len(fixed["library"]),
        "numbers and small pictures": len(fixed["index"]),
    }
    return {
        "plan": shown.plan,
        "images": shown.images,
        "unreadable": shown.problems,
        "sizes": {name: f"{size / 1e6:.1f} MB" for name, size in sizes.items()},
    }


def _asset(name: str) -> str:
    return resources.files("fa_hific_jax.evaluation.report").joinpath(name).read_text("utf-8")


def _encoded(page: str) -> bytes:
    return page.encode("utf-8", errors="replace")
