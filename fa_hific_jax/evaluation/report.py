"""results.json and the reconstructions as one self-contained HTML page."""

import base64
import io
import json
import math
import re
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import results as res
from fa_hific_jax.spectra import decibels, log_spectrum, radial_power_spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# All pictures of the page together: the 24 Kodak images in five versions (some 70 MB) keep their
# size, larger sets are scaled down to this.
PIXEL_BUDGET = 48_000_000

SPECTRUM_SIDE = 192  # pixels of a plotted spectrum; more only adds bytes
RINGS = 64

# A colour that no plot uses; the page's text colour takes its place, in light and in dark.
_INK = "#010203"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "legend.frameon": False,
} | {
    f"{name}color": _INK
    for name in ("text.", "axes.edge", "axes.label", "xtick.", "ytick.", "grid.")
}


class Look(NamedTuple):
    label: str
    colour: str  # legible on white and on black
    marker: str  # matplotlib's
    sign: str  # the same in text


_LOOKS = {
    res.OURS: Look("FA-HiFiC", "#e8590c", "o", "●"),
    "untrained": Look("untrained", "#868e96", "D", "◆"),
    "jpeg": Look("JPEG", "#1c7ed6", "s", "■"),
    "webp": Look("WebP", "#2f9e44", "^", "▲"),
}


def look(codec: str) -> Look:
    """Name, colour and marker of a codec, the same all over the page."""
    return _LOOKS.get(codec, Look(codec, "#ae3ec9", "v", "▼"))


def write_report(results: dict[str, Any], folder: Path) -> Path:
    """Writes `folder/report.html` and returns its path.

    The page holds its pictures and plots itself and loads nothing.

    Args:
      results: as `results.read_results` returns them. Of `meta` the headline uses `model`, `step`
        and `target_bpp`; the rest is listed as settings.
      folder: holds `originals/<image>.png` and, under `row["file"]`, the reconstructions.

    Raises:
      UserError: matplotlib or Jinja2 is not installed, there are no rows, an image lacks its
        "fa-hific" row or has two of one codec, or a picture is missing.
    """
    try:
        import jinja2
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError(
            "the report needs matplotlib and Jinja2: pip install fa-hific-jax[eval]"
        ) from None
    images = _rows_by_image(results["rows"])
    scale = _scale(images)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(look=look, cell=res.cell, metrics=res.METRICS, ours=res.OURS)
    template = resources.files("fa_hific_jax.evaluation").joinpath("report.html.j2")
    page = environment.from_string(template.read_text("utf-8")).render(
        meta=results["meta"],
        settings=_settings(results["meta"]),
        means=results["mean"],
        notes=res.size_notes(results["mean"]),
        scatters=_scatters(results),
        sections=[_section(rows, folder, scale) for rows in images],
        scale=scale,
    )
    path = folder / "report.html"
    res.replace_file(path, page.encode("utf-8", errors="replace"))
    return path


def _rows_by_image(rows: Iterable[dict[str, Any]]) -> list[list[res.Row]]:
    """The rows of each image, our codec first; a null PSNR is an infinite one."""
    images: dict[str, list[res.Row]] = {}
    for row in rows:
        psnr = math.inf if row["psnr"] is None else row["psnr"]
        images.setdefault(row["image"], []).append(res.Row(**{**row, "psnr": psnr}))
    if not images:
        raise UserError("the results hold no rows: evaluate at least one image")
    for name, of_image in images.items():
        of_image.sort(key=lambda row: res.rank(row.codec))
        if of_image[0].codec != res.OURS:
            raise UserError(f"the results hold no {res.OURS!r} row for {name}: evaluate it again")
        if len({row.codec for row in of_image}) < len(of_image):
            raise UserError(f"the results hold {name} twice: give every image its own name")
    return list(images.values())


def _scale(images: list[list[res.Row]]) -> float:
    """The factor on both sides that keeps all pictures together within PIXEL_BUDGET."""
    pixels = sum(rows[0].width * rows[0].height * (len(rows) + 1) for rows in images)
    return min(1.0, math.sqrt(PIXEL_BUDGET / pixels))


def _settings(meta: dict[str, Any]) -> list[tuple[str, str]]:
    return [(k, v if isinstance(v, str) else json.dumps(v)) for k, v in meta.items()]


def _section(rows: list[res.Row], folder: Path, scale: float) -> dict[str, Any]:
    """What the page shows of one image."""
    name = rows[0].image
    original = _open(folder / "originals" / f"{name}.png")
    decoded = {row.codec: _open(folder / row.file) for row in rows}
    return {
        "name": name,
        "width": rows[0].width,
        "height": rows[0].height,
        "rows": rows,
        "table": res.summarize(rows),
        "original": _data_uri(original, scale),
        "pictures": {codec: _data_uri(picture, scale) for codec, picture in decoded.items()},
        "spectra": _spectra(original, decoded[res.OURS], name),
        "radial": _radial(original, decoded, name),
    }


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (FileNotFoundError, OSError) as error:
        raise UserError(f"cannot read {path}: run the evaluation again ({error})") from None


def _data_uri(image: Image.Image, scale: float) -> str:
    """The picture without loss: WebP, or PNG where a side is too long for WebP."""
    if scale < 1.0:
        size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    file, format = io.BytesIO(), "webp" if max(image.size) <= 16383 else "png"
    image.save(file, format, lossless=True, method=2, quality=20)
    return f"data:image/{format};base64,{base64.b64encode(file.getvalue()).decode()}"


def _svg(draw: Callable[["Figure", "Axes"], None], label: str, size: tuple[float, float]):
    """An inline SVG of one pair of axes, in the page's own text colour and font."""
    import matplotlib
    from markupsafe import Markup, escape
    from matplotlib.figure import Figure

    # The salt makes element ids unique in the page and the same in every run.
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": label}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure, figure.add_subplot())
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    drawing = file.getvalue()
    drawing = drawing[drawing.index("<svg ") :].replace(_INK, "currentColor")
    # matplotlib numbers its groups anew in every drawing; only ids that are referred to stay.
    drawing = re.sub(r' id="([^"]+)"', lambda m: m[0] if f"#{m[1]}" in drawing else "", drawing)
    return Markup(f'<svg role="img" aria-label="{escape(label)}" {drawing[len("<svg ") :]}')


def _scatters(results: dict[str, Any]) -> list[Any]:
    """Rate against each quality that was measured: images as small marks, means as large ones."""

    def scatter(metric: str) -> Any:
        heading, _, better = res.METRICS[metric]

        def draw(figure: "Figure", axes: "Axes") -> None:
            for codec, means in results["mean"].items():
                _, colour, marker, _ = look(codec)
                rows = [row for row in results["rows"] if row["codec"] == codec]
                points = [(row["bpp"], row[metric]) for row in rows if row[metric] is not None]
                style = {"color": colour, "marker": marker, "linewidths": 0}
                axes.scatter(*np.reshape(points, (-1, 2)).T, s=20, alpha=0.6, **style)
                if means[metric] is not None:
                    axes.scatter(means["bpp"], means[metric], s=90, zorder=3, **style)
            axes.set(xlabel="bits per pixel", title=f"{heading} ({better} is better)")
            axes.set_xlim(*limits)

        return _svg(draw, f"{heading} against bits per pixel", (4.6, 2.9))

    rates = [row["bpp"] for row in results["rows"]]
    limits = (0.85 * min(rates), 1.1 * max(rates))
    metrics = ("psnr", "ms_ssim", "lpips", "lfd")
    return [scatter(m) for m in metrics if any(row[m] is not None for row in results["rows"])]


def _spectra(original: Image.Image, ours: Image.Image, name: str) -> list[Any]:
    """Log spectra of the original and of ours on one scale, and ours minus the original."""
    first, second = (_shrunk(log_spectrum(np.asarray(image))) for image in (original, ours))
    low, high = np.percentile([first, second], (1.0, 99.9))
    reach = max(1.0, float(np.percentile(abs(second - first), 99.0)))
    panels = [
        ("original", first, "magma", low, max(high, low + 1.0)),
        (look(res.OURS).label, second, "magma", low, max(high, low + 1.0)),
        (f"{look(res.OURS).label} − original", second - first, "RdBu_r", -reach, reach),
    ]
    return [_spectrum(*panel, label=f"{name}: spectrum, {panel[0]}") for panel in panels]


def _spectrum(
    title: str, values: Float[np.ndarray, "h w"], cmap: str, low: float, high: float, label: str
) -> Any:
    def draw(figure: "Figure", axes: "Axes") -> None:
        image = axes.imshow(values, cmap, vmin=low, vmax=high, interpolation="none")
        image.set_extent((-0.5, 0.5, -0.5, 0.5))
        axes.set(title=title, xticks=(-0.5, 0.0, 0.5), yticks=(-0.5, 0.0, 0.5))
        axes.set_xlabel("cycles per pixel")
        axes.grid(False)
        figure.colorbar(image, ax=axes, shrink=0.8, label="dB")

    return _svg(draw, label, (3.6, 3.0))


def _shrunk(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h2 w2"]:
    height, width = values.shape
    size = (min(width, SPECTRUM_SIDE), min(height, SPECTRUM_SIDE))
    return np.asarray(
        Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BOX), np.float64
    )


def _radial(original: Image.Image, decoded: dict[str, Image.Image], name: str) -> list[Any]:
    """Radial power spectra, absolute and relative to the original."""
    frequency, power = radial_power_spectrum(np.asarray(original), RINGS)
    reference = decibels(power)
    curves = {
        codec: decibels(radial_power_spectrum(np.asarray(image), RINGS)[1])
        for codec, image in decoded.items()
    }

    def plot(title: str, base: Float[np.ndarray, " n"]) -> Any:
        def draw(figure: "Figure", axes: "Axes") -> None:
            axes.plot(frequency, reference - base, color=_INK, linewidth=2.2, alpha=0.55)
            for codec, curve in reversed(curves.items()):
                axes.plot(frequency, curve - base, color=look(codec).colour, linewidth=1.4)
            axes.set(title=title, xlabel="cycles per pixel", ylabel="dB", xlim=(0.0, 0.5))

        return _svg(draw, f"{name}: {title}", (4.6, 2.9))

    zero = np.zeros_like(reference)
    return [plot("radial power spectrum", zero), plot("relative to the original", reference)]
