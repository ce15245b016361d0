"""Writes decoded images as files, and codes transparency without loss."""

import io
import lzma
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.codec.metadata import with_metadata
from fa_hific_jax.data.metadata import Metadata
from fa_hific_jax.errors import UserError
from fa_hific_jax.streams import is_stream
from fa_hific_jax.writing import whole_file

Alpha = UInt8[np.ndarray, "h w"]

# Lossless if the format allows it: writing a decoded image should not reduce its quality further.
_JPEG = ("JPEG", {"quality": 95, "subsampling": 0})
_TIFF = ("TIFF", {"compression": "tiff_deflate"})
_FORMATS = {
    ".png": ("PNG", {}),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": ("WEBP", {"lossless": True, "exact": True}),
    ".tif": _TIFF,
    ".tiff": _TIFF,
}

_MARK = ("Software", "fa-hific")  # a text chunk in PNG, by which `is_decoded` recognizes the file

_LEFT, _UP = 1, 2  # bits of a stream's first byte: the directions in which differences were taken
_FILTERS = (0, _LEFT, _LEFT | _UP)
_LZMA = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 2**20, "pb": 0}]
_SAMPLE = 2**19  # pixels on which the filters are compared


def pack_alpha(alpha: Alpha) -> bytes:
    """Returns the alpha stream of docs/bitstream.md, which is b"" if all is opaque (255)."""
    if alpha.min() == 255:
        return b""
    rows = max(1, _SAMPLE // alpha.shape[1])
    start = max(0, (alpha.shape[0] - rows) // 2)
    sample = alpha[start : start + rows]
    method = min(_FILTERS, key=lambda method: len(_compressed(sample, method)))
    return bytes([method]) + _compressed(alpha, method)


def unpack_alpha(data: bytes, height: int, width: int) -> Alpha:
    """Returns the transparency that `pack_alpha` was given, for an image of this size in pixels.

    Memory is proportional to height times width, whatever the bytes are. Raises a BitstreamError
    unless the bytes hold exactly that many pixels.
    """
    if not data:
        return np.full((height, width), 255, np.uint8)
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_LZMA)
    try:
        pixels = decoder.decompress(data[1:], max_length=height * width)
        pixels += decoder.decompress(b"", max_length=1) if not decoder.eof else b""
        if not decoder.eof or decoder.unused_data or len(pixels) != height * width:
            raise ValueError("bytes are missing, or follow the end")
        if data[0] not in _FILTERS:
            raise ValueError("no such filter")
    except (lzma.LZMAError, EOFError, ValueError) as error:
        raise BitstreamError("the transparency in the file is damaged: fetch it again") from error
    alpha = np.frombuffer(bytearray(pixels), np.uint8).reshape(height, width)
    for bit, axis in ((_UP, 0), (_LEFT, 1)):
        if data[0] & bit:
            np.add.accumulate(alpha, axis=axis, dtype=np.uint8, out=alpha)
    return alpha


def write_image(
    path: Path | str,
    rgb: UInt8[np.ndarray, "h w 3"],
    alpha: Alpha | None = None,
    metadata: Metadata = Metadata(),  # noqa: B008  # It cannot be changed.
    *,
    replace: bool = True,
) -> None:
    """Writes an image, values 0 to 255, in the format of the path's suffix, like `whole_file`.

    PNG, WebP and TIFF are lossless; JPEG has quality 95 at full color resolution. Standard output
    and pipes without a suffix get PNG.

    Raises:
      UserError: the suffix is unknown, the format cannot hold this size, transparency or metadata,
        or the file exists and `replace` is False.
    """
    path = Path(path)
    check_image_name(path)
    kind, options = _FORMATS.get(path.suffix.lower(), _FORMATS[".png"])
    if kind == "PNG":
        options = {"pnginfo": PngImagePlugin.PngInfo()}
        options["pnginfo"].add_text(*_MARK)
    if alpha is not None and kind == "JPEG":
        raise UserError(f"{path}: JPEG cannot hold transparency: write PNG, WebP or TIFF")
    options = with_metadata(options, metadata, kind)
    pixels = rgb if alpha is None else np.concatenate([rgb, alpha[..., None]], axis=-1)
    encoded = io.BytesIO()
    try:
        Image.fromarray(pixels).save(encoded, kind, **options)
    except (OSError, ValueError) as error:
        size = f"{rgb.shape[1]} x {rgb.shape[0]} pixels"
        raise UserError(f"{path}: {kind} cannot hold {size} ({error}): write PNG") from error
    with whole_file(path, replace=replace) as file:
        file.write(encoded.getbuffer())


def check_image_name(path: Path) -> None:
    """Raises a UserError unless `write_image` knows the suffix, or the path is a stream."""
    if path.suffix.lower() not in _FORMATS and not is_stream(path):
        known = " ".join(_FORMATS)
        raise UserError(f"{path}: images are written as {known}: choose a name with such an ending")


def is_decoded(path: Path) -> bool:
    """Returns True for a PNG file that `write_image` has written."""
    try:
        with path.open("rb") as file:
            return "tEXt{}\0{}".format(*_MARK).encode() in file.read(256)
    except OSError:
        return False


def _compressed(alpha: Alpha, method: int) -> bytes:
    for bit, axis in ((_LEFT, 1), (_UP, 0)):
        if method & bit:
            first = np.zeros_like(alpha[:1] if axis == 0 else alpha[:, :1])
            alpha = np.diff(alpha, axis=axis, prepend=first)
    return lzma.compress(alpha.tobytes(), lzma.FORMAT_RAW, filters=_LZMA)
