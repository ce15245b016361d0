"""What happens to a dropped file: coded beside JPEG of the same size, or decoded."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.codec.coding import padded_shape
from fa_hific_jax.codec.model import Model
from fa_hific_jax.data.images import Picture, image_size, on_white, read_image
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import baselines
from fa_hific_jax.metrics.squared_error import psnr

Image = UInt8[np.ndarray, "_ _ 3"]

OUT_OF_MEMORY = "not enough memory for an image of this size: cut it into parts"


class Coded(NamedTuple):
    """An image as the model and as JPEG code it.

    Attributes:
      name: of the file, without folder and suffix.
      original: what was coded; transparency is laid on white.
      data: the model's file.
      jpeg: the JPEG file nearest to that in size.
      notes: sentences on what of the file was not kept.
    """

    name: str
    original: Image
    data: bytes
    jpeg: baselines.Coded
    notes: tuple[str, ...]


def code(model: Model, path: Path, quality: float | None, max_pixels: int) -> Coded:
    """The image in a file, coded.

    Args:
      model: codes.
      path: of any kind that Pillow reads.
      quality: from 0 to 1, None for a model of one rate.
      max_pixels: refuse larger images, counted in blocks of 64 x 64 pixels as for decoding.

    Raises:
      UserError: no image, a damaged or too large one, or one that JPEG cannot hold.
    """
    height, width = image_size(path)
    if np.prod(padded_shape(height, width)) > max_pixels:
        raise UserError(
            f"{path}: {width} x {height} pixels are over the limit of {max_pixels / 1e6:g} "
            "megapixels, counted in blocks of 64 x 64: cut it into parts, or raise --max-megapixels"
        )
    picture = read_image(path)
    notes = picture.notes
    if picture.alpha is not None:
        notes += ("its transparency was laid on white",)
    original = on_white(picture)
    data = model.compress(original, quality=quality)
    jpeg = baselines.encode_nearest(original, "jpeg", len(data))
    return Coded(path.stem, original, data, jpeg, notes)


def decode(model: Model, path: Path, detail: float | None, max_pixels: int) -> Picture:
    """The picture in a file of `Model.compress`, `detail` and `max_pixels` as for `decompress`.

    Raises:
      UserError: the file is none, is damaged, too large or of another model.
    """
    try:
        rgb, alpha = model.decompress_picture(
            path.read_bytes(), detail=detail, max_pixels=max_pixels
        )
    except BitstreamError as error:
        raise UserError(f"{path}: {error}") from error
    return Picture(rgb, alpha)


def table(coded: Coded, decoded: Image) -> str:
    """Size, rate and distance from the original of both files, in Markdown, with the notes."""
    rows = [("this model", "", coded.data, decoded)]
    rows.append(("JPEG", coded.jpeg.setting, coded.jpeg.data, coded.jpeg.image))
    lines = ["| | bytes | bits per pixel | PSNR, dB | |", "|:--|--:|--:|--:|:--|"]
    for label, setting, data, image in rows:
        size, rate, distance = len(data), bpp(data, image), psnr(coded.original, image)
        lines.append(f"| {label} | {size:,} | {rate:.3f} | {distance:.2f} | {setting} |")
    height, width, _ = coded.original.shape
    notes = "".join(f"; {note}" for note in coded.notes)
    return "\n".join(lines) + f"\n\n{width} x {height} pixels{notes}."


def bpp(data: bytes, image: Image) -> float:
    """Bits per pixel of the whole file, header included."""
    return 8 * len(data) / (image.shape[0] * image.shape[1])


def sentence(error: Exception, path: Path) -> str:
    """What to tell the visitor: one line, with the file's name in place of its temporary path."""
    text = str(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        text = f"{path}: {OUT_OF_MEMORY}"
    return " ".join(text.replace(str(path), path.name).split())
