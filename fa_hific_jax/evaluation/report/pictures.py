"""What the page holds of each picture, coded so that the page stays within its size."""

import base64
import functools
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from fa_hific_jax.evaluation.report.tables import anchor, nearest, rated
from fa_hific_jax.evaluation.results import Results, plain
from fa_hific_jax.evaluation.rows import original_file
from fa_hific_jax.models import STRIDE
from fa_hific_jax.spectra import decibels, log_spectrum, radial_power_spectrum

THUMBNAIL_SIDE = 112
SPECTRUM_SIDE = 95  # bins per side of a drawn spectrum, odd: the middle one holds frequency zero
HEAT_SIDE = 96  # cells per side of a drawn heat map
BANDS = 64  # radial bands of a drawn radial spectrum
_UNREADABLE = (OSError, ValueError, KeyError, Image.DecompressionBombError)

Map = Float[np.ndarray, "_ _"]


class Detail(NamedTuple):
    """A plan of how many pictures are shown, and how they are coded."""

    points: int  # number of rates of the anchor at which every codec is shown
    quality: int | None  # quality of lossy WebP; None is lossless
    scale: float = 1.0  # factor of both sides


# From best to worst: fewer pictures before worse ones, worse ones before smaller ones.
DETAILS = (
    Detail(4, None), Detail(4, 95), Detail(4, 90), Detail(3, 90), Detail(2, 90), Detail(2, 85),
    Detail(1, 90), Detail(1, 85), Detail(1, 85, 0.7), Detail(1, 85, 0.5), Detail(1, 85, 0.35),
)  # fmt: skip


class Shown(NamedTuple):
    """Pictures, spectra and heat maps of the images, as JSON texts."""

    detail: Detail
    images: dict[str, str]  # image -> JSON, without the images that did not fit
    problems: list[str]  # files that could not be read


def fit(results: Results, folder: Path, limit: int) -> Shown:
    """Returns the best of DETAILS whose texts have at most `limit` bytes together.

    If even the last one is too large, as many images as fit are shown. The text of an image is
    {"original": picture or null, "rows": {index: picture}}.
    """
    problems: dict[str, None] = {}
    encoded, seen = functools.cache(_encoded), functools.cache(_frequencies)

    def read(function: Callable[..., dict[str, Any]], file: str, *arguments: Any) -> Any:
        try:
            return function(folder / file, *arguments)
        except _UNREADABLE as error:
            missing = isinstance(error, FileNotFoundError)
            problems[f"{file}: {'the file is missing' if missing else error}"] = None

    def picture(path: Path, size: tuple[int, int], detail: Detail) -> dict[str, Any]:
        return {"src": encoded(path, size, detail.quality, detail.scale), **seen(path)}

    def text(image: str, size: tuple[int, int], detail: Detail) -> str:
        rows = {}
        for index in shown_rows(results, image, detail.points):
            row = results["rows"][index]
            if found := read(picture, row["file"], size, detail):
                rows[index] = found | {"bits": row["bits"] and read(heat_maps, row["bits"], *size)}
        original = read(picture, original_file(image), size, detail)
        return script_json({"original": original, "rows": rows})

    sizes = {row["image"]: (row["width"], row["height"]) for row in results["rows"]}
    pixels = sum(map(math.prod, sizes.values()))
    images: dict[str, str] = {}
    for detail in DETAILS:
        images, length, area = {}, 0, 0
        for name, size in sizes.items():
            found = text(name, size, detail)
            length, area = length + len(found), area + math.prod(size)
            # An excess so clear that coding the rest is in vain.
            hopeless = length * pixels > 2 * limit * area and detail != DETAILS[-1]
            if length > limit or hopeless:
                break
            images[name] = found
        else:
            return Shown(detail, images, list(problems))
    return Shown(DETAILS[-1], images, list(problems))


def shown_rows(results: Results, image: str, points: int) -> list[int]:
    """Returns indices into results["rows"] of the pictures of an image, by codec and rate.

    The anchor is shown at `points` of its points, evenly spaced in order of rate. Every other codec
    is shown where its file of this image is nearest in size to one of those.
    """
    rows = [{**row, "index": i} for i, row in enumerate(results["rows"]) if row["image"] == image]
    codec = anchor(results)
    means = rated(results, codec)
    low, high = (0, len(means) - 1) if points > 1 else ((len(means) - 1) // 2,) * 2
    wanted = [means[round(p)] for p in np.linspace(low, high, min(points, len(means)))]
    own = {row["point"]: row["bpp"] for row in rows if row["codec"] == codec}
    # Rates of the anchor's files of this image, or its mean rates if there are none.
    rates = [own.get(mean["point"], mean["bpp"]) for mean in wanted]
    rates = rates or sorted(own.values() or {row["bpp"] for row in rows})[:points]
    chosen = []
    for codec in results["codecs"]:
        of_codec = [row for row in rows if row["codec"] == codec]
        found = {nearest(of_codec, rate)["index"] for rate in rates if of_codec}
        chosen += sorted(found, key=lambda i: results["rows"][i]["bpp"])
    return chosen


def thumbnail(folder: Path, image: str) -> str | None:
    """Returns a small picture of the original as a data URI; None if it cannot be read."""
    try:
        picture = _open(folder / original_file(image))
    except _UNREADABLE:
        return None
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return data_uri(picture, 70)


def data_uri(image: Image.Image, quality: int | None, scale: float = 1.0) -> str:
    """Returns the picture as WebP, or as PNG or JPEG if a side is too long for WebP.

    A `scale` below 1 multiplies both sides before.
    """
    if scale < 1.0:
        width, height = (max(1, round(scale * side)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    format, options = "webp", {"quality": quality, "method": 4, "use_sharp_yuv": True}
    if max(image.size) > 16383:
        format, options = ("jpeg", {"quality": quality}) if quality else ("png", {})
    elif quality is None:
        options = {"lossless": True, "quality": 20, "method": 2}
    file = io.BytesIO()
    image.save(file, format, **options)
    return f"data:image/{format};base64,{base64.b64encode(file.getvalue()).decode()}"


def script_json(value: Any) -> str:
    """Returns a value as ASCII JSON that an HTML parser cannot take for the script's end."""
    text = json.dumps(plain(value), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def spectrum(image: UInt8[np.ndarray, "h w 3"]) -> dict[str, Any]:
    """Returns the log spectrum in steps of 0.5 dB: its upper rows, down to the middle one.

    The rows below are the rows above turned by half a circle, as luma is real.
    """
    values = log_spectrum(image)
    values = _shrunk(values, *(min(SPECTRUM_SIDE, side - 1 + side % 2) for side in values.shape))
    return _packed(values[: len(values) // 2 + 1], -30.0, 0.5)


def heat_maps(path: Path, width: int, height: int) -> dict[str, Any]:
    """Returns maps of the bits of an image: {"y": …, "z": …}, in bits per pixel.

    The .npz has "y" (hy, wy) and "z" (hz, wz), bits at each position of the latents. Each map is
    packed, with "size" (width and height of a cell in pixels) and "bpp" of the whole latent.
    """
    with np.load(path, allow_pickle=False) as arrays:
        bits = {name: np.asarray(arrays[name], np.float64) for name in ("y", "z")}
    if any(b.ndim != 2 or not b.size or not np.isfinite(b).all() for b in bits.values()):
        raise ValueError("y and z must be maps of finite numbers")
    padded = np.array(bits["z"].shape[::-1]) * STRIDE
    found = {}
    for name, of in bits.items():
        density = of * (of.size / float(np.prod(padded)))
        small = _shrunk(density, *(min(side, HEAT_SIDE) for side in of.shape))
        cell = {"size": (padded / small.shape[::-1]).tolist()}
        rate = {"bpp": round(float(of.sum()) / (width * height), 5)}
        found[name] = _packed(small, 0.0, max(float(small.max()), 1e-9) / 255) | cell | rate
    return found


def _packed(values: Map, low: float, step: float) -> dict[str, Any]:
    """Returns {"shape", "low", "step", "data"}: bytes with value = low + step * byte, clipped."""
    codes = np.clip(np.rint((values - low) / step), 0, 255).astype(np.uint8)
    data = base64.b64encode(codes.tobytes()).decode()
    return {"shape": list(values.shape), "low": low, "step": step, "data": data}


def _shrunk(values: Map, height: int, width: int) -> Map:
    """Returns the values averaged over areas."""
    small = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, np.float64)


def _encoded(path: Path, size: tuple[int, int], quality: int | None, scale: float) -> str:
    image = _open(path)
    if image.size != size:
        raise ValueError("{} × {} pixels instead of {} × {}".format(*image.size, *size))
    return data_uri(image, quality, scale)


def _frequencies(path: Path) -> dict[str, Any]:
    """Returns the spectrum, and the radial one in dB by cycles per pixel, rounded for the page."""
    pixels = np.asarray(_open(path))
    frequency, power = radial_power_spectrum(pixels, BANDS)
    radial = {"x": np.round(frequency, 4).tolist(), "y": np.round(decibels(power), 2).tolist()}
    return {"spectrum": spectrum(pixels), "radial": radial}


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
