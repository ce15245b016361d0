"""One image in files of the same size by several codecs: the numbers, a picture and a page."""

import math
from collections.abc import Sequence
from html import escape
from importlib import resources
from string import Template
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont, ImageOps

from fa_hific_jax.codec import bitstream
from fa_hific_jax.data.images import Picture, on_white
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import baselines
from fa_hific_jax.evaluation.report.page import SIZE_LIMIT, asset
from fa_hific_jax.evaluation.report.pictures import DETAILS, data_uri, script_json
from fa_hific_jax.metrics.pairs import lpips_distances, psnr
from fa_hific_jax.metrics.weights import Weights
from fa_hific_jax.spectra import LUMA

Image = UInt8[np.ndarray, "_ _ 3"]

CODECS = ("jpeg", "webp", "avif", "jpegxl")
"""Ids of the classical codecs that an image is compared with."""

CELL, HEAD, GAP = 320, 64, 8
"""Side of the drawn pictures, height of the text over them and space between them, in pixels."""

_SAME = 0.02  # relative difference of two sizes up to which they count as equal
_MARK = (255, 96, 0)
_LINES = ((4, 16), (26, 13), (43, 13))  # top and font size of each line of text


class Version(NamedTuple):
    """An image as a codec decodes it from its file."""

    label: str  # name of the codec
    setting: str  # the quality, then the other options
    data: bytes
    image: Image
    excess: float  # size of the file relative to this codec's, minus 1
    psnr: float  # in dB, inf if the image is the original
    lpips: float | None  # with AlexNet; None where it was not measured

    @property
    def title(self) -> str:
        """Name of the codec and its quality."""
        return ", ".join(filter(None, (self.label, self.setting.partition(",")[0])))

    @property
    def size(self) -> str:
        """Size of the file; if it differs from this codec's, says by how much."""
        other = abs(self.excess) > _SAME
        more = f" (nearest possible: {100 * self.excess:+.0f} %)" if other else ""
        return f"{len(self.data):,} bytes{more}"

    @property
    def bpp(self) -> float:
        """Bits per pixel of the whole file, including the header."""
        return 8 * len(self.data) / math.prod(self.image.shape[:2])

    @property
    def numbers(self) -> str:
        """Rate, PSNR and LPIPS."""
        error = f"{self.psnr:.2f} dB" if math.isfinite(self.psnr) else "no error"
        distance = "" if self.lpips is None else f", LPIPS {self.lpips:.3f}"
        return f"{self.bpp:.3f} bpp, {error}{distance}"


def opaque(picture: Picture) -> tuple[Image, tuple[str, ...]]:
    """Returns the picture on white, and its notes with one on the transparency that this drops."""
    note = () if picture.alpha is None else ("its transparency was laid on white",)
    return on_white(picture), picture.notes + note


def versions(
    original: Image,
    data: bytes,
    decoded: Image,
    model: str,
    codecs: Sequence[str],
    weights: Weights,
) -> tuple[list[Version], list[str]]:
    """Returns this codec's version first, then that of each classical codec at the nearest size.

    `data` is this codec's file, made by the model of that name, and `decoded` its image. The second
    result has a sentence for each codec and metric that is left out, with the reason.
    """
    made, notes = [], []

    def add(label: str, setting: str, file: bytes, image: Image) -> None:
        lpips = lpips_distances(weights, "alex", original[None], image[None])
        if isinstance(lpips, str) and not made:
            notes.append(f"LPIPS is left out: {lpips}")
        excess, distance = len(file) / len(data) - 1, None if isinstance(lpips, str) else lpips[0]
        made.append(Version(label, setting, file, image, excess, psnr(original, image), distance))

    quality = bitstream.unpack(data).quality
    chosen = "" if quality is None else f"quality {quality / (bitstream.QUALITIES - 1):.2g}, "
    add("FA-HiFiC", f"{chosen}model {model}", data, decoded)
    for name in codecs:
        label = baselines.codec(name).label
        try:
            found = baselines.encode_nearest(original, name, len(data))
            add(label, found.setting, found.data, found.image)
        except UserError as error:
            reason = str(error).removesuffix(": leave this baseline out")
            notes.append(f"{label} is left out: {reason}")
    return made, notes


# The places that are enlarged.


class Place(NamedTuple):
    """A square of an image that is shown enlarged, in pixels."""

    top: int
    left: int
    side: int

    @property
    def middle(self) -> tuple[int, int]:
        """The x and y by which `place_at` finds this square again."""
        return self.left + self.side // 2, self.top + self.side // 2


def place_at(image: Image, x: int, y: int) -> Place:
    """Returns the square around the pixel (x, y), moved into the image where it would stick out.

    Raises:
      UserError: the image has no such pixel.
    """
    height, width, _ = image.shape
    if x >= width or y >= height:
        raise UserError(f"--zoom {x},{y} is outside the {width} x {height} pixels of the image")
    side = _side(image)
    top, left = (min(max(at - side // 2, 0), end - side) for at, end in ((y, height), (x, width)))
    return Place(top, left, side)


def most_detailed(image: Image) -> Place:
    """Returns the square, at a multiple of a quarter of its side, of the largest luma gradient."""
    side = _side(image)
    step = max(1, side // 4)
    luma = image @ LUMA
    gradient = np.abs(np.diff(luma, axis=0, prepend=luma[:1]))
    gradient += np.abs(np.diff(luma, axis=1, prepend=luma[:, :1]))
    means = sliding_window_view(gradient, (side, side))[::step, ::step].mean(axis=(2, 3))
    row, column = np.unravel_index(means.argmax(), means.shape)
    return Place(int(row) * step, int(column) * step, side)


def _side(image: Image) -> int:
    """Returns the side of the squares: they are enlarged by 2, and more in a tiny image."""
    return min(CELL // 2, *image.shape[:2])


# The picture and the page.


def sheet(original: Image, versions: Sequence[Version], places: Sequence[Place]) -> Image:
    """Returns a picture of the original and all versions, each under its name and numbers.

    Each is shown whole, with the places below it, enlarged by a whole factor.
    """
    height, width, _ = original.shape
    where = " and ".join("{},{}".format(*place.middle) for place in places)
    told = ("original", f"{width} x {height} pixels", f"below: {places[0].side} pixels at {where}")
    cells = [_cell(told, original, places, marked=True)]
    cells += [_cell((v.title, v.size, v.numbers), v.image, places, marked=False) for v in versions]
    columns = 2 if len(cells) == 4 else 3
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    rows = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    return np.pad(np.vstack(rows), ((0, 0), (GAP, 0), (0, 0)), constant_values=255)


def _cell(told: Sequence[str], image: Image, places: Sequence[Place], marked: bool) -> Image:
    height, width, _ = image.shape
    scale = min(CELL / height, CELL / width)
    scale = scale if scale < 1 else int(scale)
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    method = PilImage.Resampling.LANCZOS if scale < 1 else PilImage.Resampling.NEAREST
    top = HEAD + size[1] + GAP
    cell = PilImage.new("RGB", (CELL + GAP, top + len(places) * (CELL + GAP)), "white")
    draw = ImageDraw.Draw(cell)
    for line, (y, font_size) in zip(told, _LINES, strict=True):
        draw.text((0, y), line, fill="black", font=ImageFont.load_default(size=font_size))
    cell.paste(PilImage.fromarray(image).resize(size, method), (0, HEAD))
    for i, (y, x, side) in enumerate(places):
        if marked:
            left, upper = scale * x, HEAD + scale * y
            right, lower = (max(a, a + scale * side - 1) for a in (left, upper))
            draw.rectangle((left, upper, right, lower), outline=_MARK, width=2)
        crop = PilImage.fromarray(image[y : y + side, x : x + side])
        large = ImageOps.scale(crop, CELL // side, PilImage.Resampling.NEAREST)
        cell.paste(large, (0, top + i * (CELL + GAP)))
    return np.asarray(cell)


def page(
    name: str,
    original: Image,
    versions: Sequence[Version],
    places: Sequence[Place],
    notes: Sequence[str],
) -> bytes:
    """Returns a page that loads nothing: any two pictures with a divider, and all numbers.

    Buttons zoom to the places. The page stays under the report's SIZE_LIMIT by coding the pictures
    with loss, then by making them smaller, and says so.
    """
    height, width, _ = original.shape
    sources, fidelity = _embedded([original, *(version.image for version in versions)])
    told = [("original", ""), *((v.title, f"{v.size}, {v.numbers}") for v in versions)]
    index = {
        "name": name,
        "width": width,
        "height": height,
        "versions": [
            {"title": title, "told": numbers, "src": source}
            for (title, numbers), source in zip(told, sources, strict=True)
        ],
        "places": [{"x": p.middle[0], "y": p.middle[1], "side": p.side} for p in places],
    }
    own = resources.files("fa_hific_jax.demo")
    text = Template((own / "compare.html").read_text("utf-8")).substitute(
        name=escape(name),
        width=width,
        height=height,
        style=asset("report.css"),
        stage=asset("stage.html"),
        rows="\n".join(map(_row, versions)),
        notes="".join(f'<p class="warning">{escape(note)}</p>\n' for note in notes),
        fidelity=fidelity,
        index=script_json(index),
        script=asset("viewer.js") + (own / "compare.js").read_text("utf-8"),
    )
    return text.encode()


def _row(version: Version) -> str:
    lpips = "–" if version.lpips is None else f"{version.lpips:.4f}"
    size = version.size.replace(" bytes", "")
    cells = (size, f"{version.bpp:.4f}", f"{version.psnr:.2f}", lpips)
    told = f'<td class="text">{escape(version.setting)}</td>'
    numbers = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(version.label)}</th>{numbers}{told}</tr>'


def _embedded(images: Sequence[Image]) -> tuple[list[str], str]:
    """Returns the images as data URIs by the first plan that fits, and a sentence on their loss."""
    sources, quality, scale = [], None, 1.0
    for quality, scale in dict.fromkeys((each.quality, each.scale) for each in DETAILS):
        sources = [data_uri(PilImage.fromarray(image), quality, scale) for image in images]
        if sum(map(len, sources)) <= SIZE_LIMIT:
            break
    if quality is None:
        return sources, "The pictures are embedded without loss."
    size = f", at {100 * scale:.0f} % of their size" if scale < 1 else ""
    return sources, (
        f"The pictures are embedded with loss to bound this file: WebP of quality {quality}{size}."
    )
