"""Coding of a dropped image by the model and by JPEG."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.codec.model import Model
from fa_hific_jax.data.images import Picture, image_size, on_white, read_image
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import baselines
from fa_hific_jax.metrics.squared_error import psnr
from fa_hific_jax.models import padded_shape

Image = UInt8[np.ndarray, "_ _ 3"]


class Coded(NamedTuple):
    """An image that was coded by the model and by JPEG."""

    name: str  # of the dropped file, without folder and suffix
    original: Image  # with transparency laid on white
    data: bytes  # the model's file
    jpeg: baselines.Coded  # the JPEG file whose size is nearest to that
    notes: tuple[str, ...]  # on what was not kept of the dropped file


def code(model: Model, path: Path, quality: float | None, max_pixels: int) -> Coded:
    """Codes the image in a file of any kind that Pillow reads with the model and with JPEG.

    `quality` is None for a model with a single rate. `max_pixels` limits the image after padding to
    blocks of 64 x 64.

    Raises:
      UserError: the file is not an image, it is damaged or too large, or JPEG cannot hold it.
    """
    height, width = image_size(path)
    if np.prod(padded_shape(height, width)) > max_pixels:
        raise UserError(
            f"{path}: {width} x {height} pixels are over the limit of {max_pixels / 1e6:g} "
            "megapixels, counted in blocks of 64 x 64: cut it into parts, or raise --max-megapixels"
        )
    original, notes = opaque(read_image(path))
    data = model.compress(original, quality=quality)
    jpeg = baselines.encode_nearest(original, "jpeg", len(data))
    return Coded(path.stem, original, data, jpeg, notes)


def opaque(picture: Picture) -> tuple[Image, tuple[str, ...]]:
    """Returns the picture on white, and its notes with one on the transparency that this drops."""
    if picture.alpha is None:
        return picture.rgb, picture.notes
    return on_white(picture), (*picture.notes, "its transparency was laid on white")


def table(coded: Coded, decoded: Image) -> str:
    """Returns size, rate and PSNR of both files as a Markdown table, followed by the notes."""
    lines = ["| | bytes | bits per pixel | PSNR, dB | |", "|:--|--:|--:|--:|:--|"]
    for label, setting, data, image in (
        ("this model", "", coded.data, decoded),
        ("JPEG", coded.jpeg.setting, coded.jpeg.data, coded.jpeg.image),
    ):
        size, rate, distance = len(data), bpp(data, image), psnr(coded.original, image)
        lines.append(f"| {label} | {size:,} | {rate:.3f} | {distance:.2f} | {setting} |")
    height, width, _ = coded.original.shape
    notes = "".join(f"; {note}" for note in coded.notes)
    return "\n".join(lines) + f"\n\n{width} x {height} pixels{notes}."


def bpp(data: bytes, image: Image) -> float:
    """Returns the bits per pixel of the whole file, including the header."""
    return 8 * len(data) / (image.shape[0] * image.shape[1])
