"""One image through one point of a codec: a real file, decoded again, and its picture kept."""

import hashlib
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image as PilImage

from fa_hific_jax.codec import bitstream, compress
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import baselines, bits
from fa_hific_jax.evaluation.candidates import Candidate, Point
from fa_hific_jax.evaluation.results import replace_file

Image = UInt8[np.ndarray, "h w 3"]
Canvases = Sequence[tuple[int, int]]


def with_model(
    candidate: Candidate, point: Point, image: Image, plan: Canvases, file: Path, bits_file: Path
) -> dict[str, Any]:
    """What a row says of the coding; writes the reconstruction and the bits of each position.

    The estimated rate is that of the model's own densities, as in training, and for an exported
    model, which has lost them, the code length under its integer tables.

    Raises:
      UserError: the model cannot code this image.
    """
    height, width, _ = image.shape
    quality, detail = _given(quality=point.quality), _given(detail=point.detail)
    start = time.perf_counter()
    data = candidate.model.compress(image, plan=plan, **quality)
    encoded = time.perf_counter()
    decoded = candidate.model.decompress(data, plan=plan, **detail)
    end = time.perf_counter()
    entropy = candidate.model.entropy
    symbols, _ = compress.decode_symbols(entropy, bitstream.unpack(data))
    map_of_bits = bits.of_symbols(entropy, symbols)
    estimated = map_of_bits.total
    if candidate.params is not None:
        estimated = compress.estimated_bits(candidate.model.config, candidate.params, symbols)
    replace_file(bits_file, bits.npz(map_of_bits))
    _keep(decoded, image, file)
    return {
        "bytes": len(data),
        "bpp": 8 * len(data) / (height * width),
        "bpp_estimated": estimated / (height * width),
        "setting": "",
        "seconds_encode": encoded - start,
        "seconds_decode": end - encoded,
    }


def warm_up(candidate: Candidate, point: Point, image: Image, plan: Canvases) -> None:
    """Codes once for nothing: compilation is not coding time."""
    data = candidate.model.compress(image, plan=plan, **_given(quality=point.quality))
    candidate.model.decompress(data, plan=plan, **_given(detail=point.detail))


def with_baseline(
    codec: str, quality: int | None, target_bytes: int, image: Image, file: Path
) -> dict[str, Any]:
    """As `with_model`, of a classical codec at a quality, or without one at the nearest size.

    Raises:
      UserError: the codec cannot code this image, or makes one of another size of it.
    """
    if quality is None:
        coded = baselines.encode_nearest(image, codec, target_bytes)
    else:
        coded = baselines.encode(image, codec, quality)
    _keep(coded.image, image, file)
    height, width, _ = image.shape
    return {
        "bytes": len(coded.data),
        "bpp": 8 * len(coded.data) / (height * width),
        "bpp_estimated": None,
        "setting": coded.setting,
        "seconds_encode": coded.seconds_encode,
        "seconds_decode": coded.seconds_decode,
    }


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


def _keep(decoded: Image, image: Image, file: Path) -> None:
    if decoded.shape != image.shape:
        sizes = [f"{array.shape[1]}x{array.shape[0]}" for array in (decoded, image)]
        raise UserError(f"the decoded image is {sizes[0]}, the original {sizes[1]}: not compared")
    write_png(file, decoded)


def _given(**options: float | None) -> dict[str, Any]:
    """Models without such a knob are not asked to turn it."""
    return {name: value for name, value in options.items() if value is not None}


def out_of_memory(error: Exception) -> bool:
    """Whether an error is of a device or a host whose memory is too small."""
    return isinstance(error, MemoryError) or (
        isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    )
