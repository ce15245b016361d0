"""Draws an image and its versions by several codecs side by side, whole and enlarged."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from fa_hific_jax.demo.equal_size import Image, Version
from fa_hific_jax.errors import UserError
from fa_hific_jax.spectra import LUMA

CELL, HEAD, GAP = 320, 64, 8
"""Side of the drawn pictures, height of the text over them and space between them, in pixels."""

_MARK = (255, 96, 0)
_LINES = ((4, 16), (26, 13), (43, 13))  # top and font size of each line of text


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
    """Returns the square whose luma has the largest mean gradient.

    Squares at multiples of a quarter of their side are tried.
    """
    height, width, _ = image.shape
    side = _side(image)
    step = max(1, side // 4)
    luma = image @ LUMA
    gradient = np.zeros((height, width))
    gradient[1:] += np.abs(np.diff(luma, axis=0))
    gradient[:, 1:] += np.abs(np.diff(luma, axis=1))
    rows, columns = height // step, width // step
    blocks = gradient[: rows * step, : columns * step].reshape(rows, step, columns, step)
    sums = sliding_window_view(blocks.sum(axis=(1, 3)), (side // step,) * 2).sum(axis=(2, 3))
    row, column = np.unravel_index(sums.argmax(), sums.shape)
    return Place(min(int(row) * step, height - side), min(int(column) * step, width - side), side)


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
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    drawn = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    return np.pad(drawn, ((0, 0), (GAP, 0), (0, 0)), constant_values=255)


def _side(image: Image) -> int:
    """Returns the side of the squares: they are enlarged by 2, and more in a tiny image."""
    return min(CELL // 2, *image.shape[:2])


def _cell(told: Sequence[str], image: Image, places: Sequence[Place], marked: bool) -> Image:
    height, width, _ = image.shape
    scale = min(CELL / height, CELL / width)
    scale = scale if scale < 1 else int(scale)
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    filter = PilImage.Resampling.LANCZOS if scale < 1 else PilImage.Resampling.NEAREST
    whole = PilImage.fromarray(image).resize(size, filter)
    top = HEAD + size[1] + GAP
    cell = PilImage.new("RGB", (CELL + GAP, top + len(places) * (CELL + GAP)), "white")
    draw = ImageDraw.Draw(cell)
    for line, (y, font_size) in zip(told, _LINES, strict=True):
        draw.text((0, y), line, fill="black", font=ImageFont.load_default(size=font_size))
    cell.paste(whole, (0, HEAD))
    for i, place in enumerate(places):
        if marked:
            edges = (place.left, place.top, place.left + place.side, place.top + place.side)
            left, upper, right, lower = (scale * edge for edge in edges)
            corner = (max(left, right - 1), HEAD + max(upper, lower - 1))
            draw.rectangle((left, HEAD + upper, *corner), outline=_MARK, width=2)
        crop = image[place.top : place.top + place.side, place.left : place.left + place.side]
        factor = CELL // place.side
        large = crop.repeat(factor, axis=0).repeat(factor, axis=1)
        cell.paste(PilImage.fromarray(large), (0, top + i * (CELL + GAP)))
    return np.asarray(cell)
