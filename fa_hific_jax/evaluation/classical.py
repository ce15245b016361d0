"""One image through one point of a classical codec, and the pictures of an evaluation.

Apart from the models: processes that run these codecs start without loading JAX.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image as PilImage

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import baselines
from fa_hific_jax.evaluation.results import replace_file

Image = UInt8[np.ndarray, "_ _ 3"]


def with_baseline(
    codec: str, quality: int | None, target_bytes: int, image: Image, file: Path
) -> dict[str, Any]:
    """What a row says of the coding by a classical codec; writes the reconstruction.

    Without a quality it is the one whose file is nearest to `target_bytes`.

    Raises:
      UserError: the codec cannot code this image, or makes one of another size of it.
    """
    if quality is None:
        coded = baselines.encode_nearest(image, codec, target_bytes)
    else:
        coded = baselines.encode(image, codec, quality)
    keep(coded.image, image, file)
    height, width, _ = image.shape
    return {
        "bytes": len(coded.data),
        "bpp": 8 * len(coded.data) / (height * width),
        "bpp_estimated": None,
        "setting": coded.setting,
        "seconds_encode": coded.seconds_encode,
        "seconds_decode": coded.seconds_decode,
    }


def keep(decoded: Image, image: Image, file: Path) -> None:
    """Writes what an image was decoded to; raises a UserError where that has another size."""
    if decoded.shape != image.shape:
        sizes = [f"{array.shape[1]}x{array.shape[0]}" for array in (decoded, image)]
        raise UserError(f"the decoded image is {sizes[0]}, the original {sizes[1]}: not compared")
    write_png(file, decoded)


def hash_of(image: Image) -> str:
    """SHA-256 of an image's size and pixels."""
    shape = "x".join(map(str, image.shape))
    return hashlib.sha256(shape.encode() + np.ascontiguousarray(image).data).hexdigest()


def read_png(path: Path) -> Image:
    with PilImage.open(path) as picture:
        return np.array(picture.convert("RGB"))


def write_png(path: Path, image: Image) -> None:
    buffer = io.BytesIO()
    # Level 6, the usual one, takes more than twice as long and is no smaller for photographs.
    PilImage.fromarray(image).save(buffer, "PNG", compress_level=2)
    replace_file(path, buffer.getvalue())
