"""Files that an evaluation keeps: their places, and the key of what each was made from."""

import hashlib
import io
import re
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image as PilImage
from PIL.PngImagePlugin import PngInfo

from fa_hific_jax.evaluation.results import replace_file

Image = UInt8[np.ndarray, "_ _ 3"]

_KEY = "evaluation"  # name of the PNG text that holds the key


def original_file(image: str) -> str:
    """Returns the place of the original of an image, relative to the folder of the results."""
    return f"originals/{_safe(image)}.png"


def decoded_files(image: str, codec: str, point: str) -> tuple[str, str]:
    """Returns the places of a decoded picture and of the bits of its file."""
    name = _safe(".".join(filter(None, [image, codec, point.replace(" ", "_")])))
    return f"reconstructions/{name}.png", f"bits/{name}.npz"


def sha256_of(image: Image) -> str:
    """Returns the SHA-256 of an image's size and pixels."""
    shape = "x".join(map(str, image.shape))
    return hashlib.sha256(shape.encode() + image.tobytes()).hexdigest()


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


def key_of(path: Path) -> str | None:
    """Returns the key that `write_png` stored, or None for a missing or foreign file."""
    try:
        with PilImage.open(path) as picture:
            return picture.info.get(_KEY)
    except (OSError, ValueError):
        return None


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Writes arrays by name; one of them may be the key of what they were made from."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    replace_file(path, buffer.getvalue())


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays that `write_npz` wrote, none of a missing or damaged file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return {}


def _safe(name: str) -> str:
    return re.sub(r"[/\\:\0]", "_", name)
