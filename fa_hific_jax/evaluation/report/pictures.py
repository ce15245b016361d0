"""Which pictures the page holds, and how they are coded so that it stays within its size."""

import base64
import functools
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fa_hific_jax.evaluation.report import frequencies
from fa_hific_jax.evaluation.report.tables import Results, anchor, nearest, rated
from fa_hific_jax.evaluation.results import plain

THUMBNAIL_SIDE = 112


class Plan(NamedTuple):
    """How much of the pictures is shown."""

    points: int  # rates of the anchor at which every codec is shown
    quality: int | None  # of lossy WebP; None is without loss
    scale: float  # of both sides


# From best to worst: fewer pictures before worse ones, worse ones before smaller ones.
PLANS = (
    Plan(4, None, 1.0),
    Plan(4, 95, 1.0),
    Plan(4, 90, 1.0),
    Plan(3, 90, 1.0),
    Plan(2, 90, 1.0),
    Plan(2, 85, 1.0),
    Plan(1, 90, 1.0),
    Plan(1, 85, 1.0),
    Plan(1, 85, 0.7),
    Plan(1, 85, 0.5),
    Plan(1, 85, 0.35),
)


class Shown(NamedTuple):
    """Pictures, spectra and heat maps of the images, as JSON texts."""

    plan: Plan
    images: dict[str, str]  # image -> JSON, without the images that did not fit
    problems: list[str]  # files that could not be read


def fit(results: Results, folder: Path, limit: int) -> Shown:
    """The best of PLANS whose texts have at most `limit` bytes together.

    Where even the last plan is too large, as many images as fit are shown.
    """
    problems: dict[str, None] = {}
    encode = functools.cache(functools.partial(_picture, folder))
    look = functools.cache(functools.partial(_frequencies, folder))
    areas = {row["image"]: row["width"] * row["height"] for row in results["rows"]}
    images: dict[str, str] = {}
    for plan in PLANS:
        images, size, area = {}, 0, 0
        for name, text in _texts(results, folder, plan, encode, look, problems):
            size, area = size + len(text), area + areas[name]
            # The second is plainly on the way to the first: coding the rest would be for nothing.
            if size > limit or (
                plan != PLANS[-1] and size * sum(areas.values()) > 2 * limit * area
            ):
                break
            images[name] = text
        else:
            return Shown(plan, images, list(problems))
    return Shown(PLANS[-1], images, list(problems))


def shown_rows(results: Results, image: str, points: int) -> list[int]:
    """Indices into results["rows"] of the pictures of an image, in order of codec and rate.

    The anchor is shown at `points` of its points, evenly spaced in order of rate; every other
    codec where its file of this image is nearest in size to one of those.
    """
    indices = [i for i, row in enumerate(results["rows"]) if row["image"] == image]
    rows = [dict(results["rows"][i], index=i) for i in indices]
    rates = _rates(results, rows, points)
    chosen = []
    for codec in results["codecs"]:
        of_codec = [row for row in rows if row["codec"] == codec]
        found = {nearest(of_codec, rate)["index"] for rate in rates if of_codec}
        chosen += sorted(found, key=lambda i: results["rows"][i]["bpp"])
    return chosen


def thumbnail(folder: Path, image: str) -> str | None:
    """A small picture of the original as a data URI; None where the original cannot be read."""
    try:
        picture = _open(_original(folder, image))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return data_uri(picture, 70)


def data_uri(image: Image.Image, quality: int | None) -> str:
    """The picture as WebP, or as PNG or JPEG where a side is too long for WebP."""
    file = io.BytesIO()
    if max(image.size) > 16383:
        format = "png" if quality is None else "jpeg"
        image.save(file, format, quality=quality or 0)
    else:
        format = "webp"
        lossless = {"lossless": True, "quality": 20, "method": 2}
        lossy = {"quality": quality, "method": 4, "use_sharp_yuv": True}
        image.save(file, format, **(lossless if quality is None else lossy))
    return f"data:image/{format};base64,{base64.b64encode(file.getvalue()).decode()}"


def _rates(results: Results, rows: list[dict[str, Any]], points: int) -> list[float]:
    """Rates of the anchor's files of one image; without such files, its mean rates."""
    codec = anchor(results)
    means = rated(results, codec)
    low, high = (0, len(means) - 1) if points > 1 else ((len(means) - 1) // 2,) * 2
    wanted = [means[round(p)] for p in np.linspace(low, high, min(points, len(means)))]
    own = {row["point"]: row["bpp"] for row in rows if row["codec"] == codec}
    rates = [own.get(mean["point"], mean["bpp"]) for mean in wanted]
    return rates or sorted(own.values() or {row["bpp"] for row in rows})[:points]


def _texts(
    results: Results,
    folder: Path,
    plan: Plan,
    encode: Callable[..., str],
    look: Callable[[Path], dict[str, Any]],
    problems: dict[str, None],
) -> Iterator[tuple[str, str]]:
    """(image, JSON of what is shown of it): {"original": picture or null, "rows": {index: …}}."""
    sizes = {row["image"]: (row["width"], row["height"]) for row in results["rows"]}

    def picture(path: Path, size: tuple[int, int]) -> dict[str, Any] | None:
        try:
            return {"src": encode(path, size, plan.quality, plan.scale), **look(path)}
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            problems[f"{path.relative_to(folder)}: {_reason(error)}"] = None
            return None

    for image, size in sizes.items():
        rows = {}
        for index in shown_rows(results, image, plan.points):
            row = results["rows"][index]
            if shown := picture(folder / row["file"], size):
                rows[index] = shown | {"bits": _bits(folder, row, problems)}
        original = picture(_original(folder, image), size)
        yield image, script_json({"original": original, "rows": rows})


def _bits(folder: Path, row: Mapping[str, Any], problems: dict[str, None]) -> dict[str, Any] | None:
    if not row.get("bits"):
        return None
    try:
        return frequencies.heat_maps(folder / row["bits"], row["width"], row["height"])
    except (OSError, ValueError, KeyError) as error:
        problems[f"{row['bits']}: {_reason(error)}"] = None
        return None


def _picture(
    folder: Path, path: Path, size: tuple[int, int], quality: int | None, scale: float
) -> str:
    image = _open(path)
    if image.size != size:
        raise ValueError("{} × {} pixels instead of {} × {}".format(*image.size, *size))
    if scale < 1.0:
        small = [max(1, round(scale * side)) for side in size]
        image = image.resize((small[0], small[1]), Image.Resampling.LANCZOS)
    return data_uri(image, quality)


def _frequencies(folder: Path, path: Path) -> dict[str, Any]:
    pixels = np.asarray(_open(path))
    return {"spectrum": frequencies.spectrum(pixels), "radial": frequencies.radial(pixels)}


def _original(folder: Path, image: str) -> Path:
    return folder / "originals" / f"{image}.png"


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _reason(error: Exception) -> str:
    return "the file is missing" if isinstance(error, FileNotFoundError) else str(error)


def script_json(value: Any) -> str:
    """value as JSON in ASCII that no HTML parser can take for the end of its script element.

    Numbers that are not finite become null.
    """
    text = json.dumps(plain(value), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
