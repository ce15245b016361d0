"""Pictures that an evaluation keeps: where they lie, and which row each belongs to."""

import hashlib
import io
import re
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image as PilImage
from PIL.PngImagePlugin import PngInfo

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation.results import replace_file

Image = UInt8[np.ndarray, "_ _ 3"]

_KEY = "evaluation"  # name of the PNG text that holds the key


def original_file(image: str) -> str:
    """Returns where the original of an image is kept, relative to the folder of the results."""
    return f"originals/{_safe(image)}.png"


def decoded_files(image: str, codec: str, point: str) -> tuple[str, str]:
    """Returns where a decoded picture and the bits of its file are kept."""
    name = _safe(".".join(filter(None, [image, codec, point.replace(" ", "_")])))
    return f"reconstructions/{name}.png", f"bits/{name}.npz"


def sha256_of(image: Image) -> str:
    """Returns the SHA-256 of an image's size and pixels."""
    shape = "x".join(map(str, image.shape))
    return hashlib.sha256(shape.encode() + np.ascontiguousarray(image).data).hexdigest()


def read_png(path: Path) -> Image:
    """Returns the pixels of a picture that `write_png` wrote."""
    with PilImage.open(path) as picture:
        return np.array(picture.convert("RGB"))


def write_png(path: Path, image: Image, key: str) -> None:
    """Writes a picture together with the key of what it was made from."""
    text, buffer = PngInfo(), io.BytesIO()
    text.add_text(_KEY, key)
    # Level 6, the usual one, takes more than twice as long and is no smaller for photographs.
    PilImage.fromarray(image).save(buffer, "PNG", compress_level=2, pnginfo=text)
    replace_file(path, buffer.getvalue())


def write_decoded(path: Path, decoded: Image, original: Image, key: str) -> None:
    """Writes a decoded image; raises a UserError if its size is not that of the original."""
    if decoded.shape != original.shape:
        sizes = [f"{array.shape[1]}x{array.shape[0]}" for array in (decoded, original)]
        raise UserError(f"the decoded image is {sizes[0]}, the original {sizes[1]}: not compared")
    write_png(path, decoded, key)


def key_of(path: Path) -> str | None:
    """Returns the key that `write_png` stored, or None for a missing or foreign file."""
    try:
        with PilImage.open(path) as picture:
            return picture.info.get(_KEY)
    except (OSError, ValueError):
        return None


def _safe(name: str) -> str:
    return re.sub(r"[/\\:\0]", "_", name)
