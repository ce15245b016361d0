"""Parses TIFF: refuses raw files, and decodes samples that Pillow reads wrongly or not at all.

For such samples, Pillow gets the file with other tags, which declare each byte of a row to be an
8-bit gray level. So Pillow still decompresses the rows, and their bytes are converted here.
"""

import contextlib
import functools
import io
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fa_hific_jax.data.color import by_rows, eight_bits
from fa_hific_jax.data.parsed import FURTHER_PAGES, TRUNCATED, ParsedFile

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_FILL_ORDER, _STRIPS, _SAMPLES, _ROWS, _STRIP_SIZES, _PLANAR = 266, 273, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES = 317, 322, 323, 324, 325
_SUB_DIRECTORIES, _EXTRA, _FORMAT, _DNG_VERSION = 330, 338, 339, 50706
_ORIENTATION, _INFO = 274, {34675: "icc_profile", 700: "xmp"}
_WHITE_IS_ZERO, _RGB, _YCBCR, _RAW_KINDS = 0, 2, 6, {32803, 34892}
_BYTEWISE = (1, 5, 8, 32773, 32946, 34925, 50000)  # compressions of bytes, not of pixels
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}  # NumPy's letters of sample formats
_ZERO_BY_DEFAULT = (_SUBFILE, _WIDTH, _HEIGHT, _PHOTOMETRIC, _EXTRA)  # other tags default to 1
# struct's codes by type number, two for fractions. Text and undefined bytes stay bytes.
_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "s", 8: "h", 9: "i", 10: "ii"}
_TYPES |= {11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_MOST_VALUES, _MOST_DIRECTORIES = 2**24, 1000
_MARKS = {b"II": "<", b"MM": ">"}
_EXTRA_SAMPLES = "its samples beyond the colors were left out"

Tags = dict[int, tuple[Any, ...]]


class _File(NamedTuple):
    """A file of tag directories, of TIFF 6.0 or BigTIFF."""

    data: bytes
    order: str  # byte order, "<" or ">" as in struct
    big: bool  # True for BigTIFF, whose offsets have 64 bits

    def unpack(self, form: str, at: int) -> tuple[Any, ...]:
        """Unpacks values at an offset; "P" stands for an offset. Raises struct.error at the end."""
        form = self.order + form.replace("P", "Q" if self.big else "I")
        return struct.unpack(form, self.data[at : at + struct.calcsize(form)])

    def directory(self, at: int) -> tuple[Tags, int]:
        """Returns the values of each tag and the offset of the next directory, 0 if there is none.

        Tags whose values are damaged or of unknown types are left out. Raises ValueError or
        struct.error if the directory itself is damaged.
        """
        (count,) = self.unpack("Q" if self.big else "H", at)
        if count > 65535:
            raise ValueError("damaged tags")
        at, size = (at + 8, 20) if self.big else (at + 2, 12)
        found = {}
        for entry in range(at, at + count * size, size):
            tag, kind, number = self.unpack("HHP", entry)
            found[tag] = self._values(_TYPES.get(kind), number, entry + size)
        (following,) = self.unpack("P", at + count * size)
        return {tag: values for tag, values in found.items() if values}, following

    def _values(self, code: str | None, count: int, end: int) -> tuple[Any, ...]:
        """Returns the values of an entry that ends at `end`; () if they are damaged."""
        if code is None or count > _MOST_VALUES:
            return ()
        form = f"{count * len(code)}{code[0]}"
        room = 8 if self.big else 4
        inside = struct.calcsize(self.order + form) <= room
        (offset,) = (end - room,) if inside else self.unpack("P", end - room)
        try:
            return self.unpack(form, offset)
        except struct.error:
            return ()


class _Layout(NamedTuple):
    """The layout of samples in a row whose bytes Pillow decodes as gray levels."""

    samples: int  # number of samples per pixel; 1 if each sample has its own plane
    bits: int  # number of bits per sample
    kind: str  # NumPy's letter for the type: "u" (unsigned), "i" (signed), "f" (floating point)
    order: str  # byte order, "<" or ">"
    predictor: int  # 1 for none, 2 for integers, 3 for floating point
    columns: int  # width in pixels of a row, or of a tile, over which the predictor runs
    negative: bool  # True if zero is white
    alpha: int  # 0: none; 1: the last sample, by which colors are multiplied; 2: the last sample

    @property
    def row_bytes(self) -> int:
        return -(-self.columns * self.samples * self.bits // 8)


def parse(data: bytes) -> ParsedFile:
    """Parses a TIFF file; one whose tags are damaged is left to Pillow.

    Raises ValueError if the file cannot be read; the message is the reason.
    """
    order = _MARKS[data[:2]]
    file = _File(data, order, data[2:4] in (b"+\0", b"\0+"))
    try:
        (start,) = file.unpack("P", 8 if file.big else 4)
        first, following = file.directory(start)
        size = first[_WIDTH][0], first[_HEIGHT][0]
        others = list(
            _other_directories(file, [start, *first.get(_SUB_DIRECTORIES, ()), following])
        )
    except (ValueError, LookupError, struct.error):
        return ParsedFile(data)
    canon = data[8:12] == b"CR\2\0" and start == 16
    kinds = {_number(each, _PHOTOMETRIC) for each in (first, *others)}
    if canon or _DNG_VERSION in first or kinds & _RAW_KINDS:
        raise ValueError(
            "a camera's raw file, of which only a preview is an image: convert it to TIFF or JPEG"
        )
    if any(_larger(other, first) for other in others):
        raise ValueError(
            "its first page is a smaller copy of a later one: save the full picture as TIFF or PNG"
        )
    parsed = ParsedFile(
        data,
        {name: _blob(first[tag]) for tag, name in _INFO.items() if tag in first},
        size=size,
        orientation=int(_number(first, _ORIENTATION)),
    )
    layout = _layout(first, file)
    if layout is None:
        extra = first.get(_EXTRA, ())
        notes = (_EXTRA_SAMPLES,) if len(extra) > 1 or extra[:1] == (0,) else ()
        return parsed._replace(notes=notes)
    directories = [_as_bytes(first, layout, plane) for plane in range(_planes(first))]
    if any(_end(each) > len(data) for each in directories):
        raise ValueError(TRUNCATED)
    pixels, *planes = (_with_directory(file, each) for each in directories)
    bound = functools.partial(_decode, planes, layout, size[0])
    return parsed._replace(pixels=pixels, notes=(FURTHER_PAGES,) if following else (), decode=bound)


def _with_directory(file: _File, tags: Tags) -> bytes:
    """Returns a TIFF with the same bytes at the same offsets and a directory of integers.

    Only the header differs, and BigTIFF becomes classic TIFF, which holds up to 4 GiB.
    """
    data, order = file.data, file.order
    offset = len(data) + len(data) % 2
    place = offset + 6 + 12 * len(tags)
    entries, values = struct.pack(f"{order}H", len(tags)), b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            values, packed = values + packed, struct.pack(f"{order}I", place + len(values))
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + packed
    head = data[:2] + struct.pack(f"{order}HI", 42, offset)
    return head + data[8:].ljust(offset - 8, b"\0") + entries + bytes(4) + values


def _blob(values: tuple) -> bytes:
    """Returns the bytes in a tag, whether its type is text, undefined or a number."""
    if isinstance(values[0], bytes):
        return values[0]
    return bytes(values) if all(0 <= value < 256 for value in values) else b"damaged"


def _number(directory: Tags, tag: int) -> int:
    """Returns the first value of a tag, or the tag's default if it is absent."""
    return directory.get(tag, (0 if tag in _ZERO_BY_DEFAULT else 1,))[0]


def _planes(first: Tags) -> int:
    """Returns the number of planes: 1 if a pixel's samples are adjacent."""
    return _number(first, _SAMPLES) if _number(first, _PLANAR) == 2 else 1


def _other_directories(file: _File, offsets: list[int]) -> Iterator[Tags]:
    """Yields the directories at the offsets but the first, and after them, without damaged ones."""
    seen = {offsets.pop(0), 0}
    while offsets and len(seen) < _MOST_DIRECTORIES:
        offset = offsets.pop(0)
        if offset not in seen:
            seen.add(offset)
            with contextlib.suppress(ValueError, struct.error):
                found, after = file.directory(offset)
                offsets.append(after)
                yield found


def _larger(other: Tags, first: Tags) -> bool:
    """Returns True if the first directory describes a smaller copy of the other's picture."""
    area = [_number(each, _WIDTH) * _number(each, _HEIGHT) for each in (first, other)]
    marked = bool(_number(first, _SUBFILE) & 1)
    below = _SUB_DIRECTORIES in first and not _number(other, _SUBFILE) & 1
    return area[1] > area[0] and (marked or below)


def _layout(first: Tags, file: _File) -> _Layout | None:
    """Returns the layout of samples that Pillow reads wrongly or not at all, None for others.

    Raises ValueError if such samples are not read here either.
    """
    bits, formats = first.get(_BITS, (1,)), first.get(_FORMAT, (1,))
    count, photometric = _number(first, _SAMPLES), _number(first, _PHOTOMETRIC)
    compression, predictor = _number(first, _COMPRESSION), _number(first, _PREDICTOR)
    misread = file.big and file.order == ">"  # Pillow takes that for a classic TIFF.
    if set(formats) <= {1, 4} and (photometric, compression) != (_YCBCR, 1) and not misread:
        usual = len(set(bits)) == 1 and bits[0] in (1, 2, 4, 8, 16) and count != 2
        deep = bits[0] == 16 and (photometric == _WHITE_IS_ZERO or _planes(first) > 1)
        if usual and not deep or photometric > _RGB and max(bits) <= 16:
            return None
    kinds = {_KINDS.get(form, "") for form in formats}
    colors = 3 if photometric == _RGB else 1
    depth, kind = max(bits), max(kinds)
    whole_bytes = depth in ({16, 32, 64} if kind == "f" else {8, 16, 32})
    known = (
        len(set(bits)) == len(kinds) == 1
        and photometric <= _RGB
        and kind != ""
        and colors <= count <= 4
        and compression in _BYTEWISE
        and (whole_bytes or (kind == "u" and depth < 16 and predictor == 1))
        and (whole_bytes or _TILE_WIDTH not in first)
        and predictor in (1, 2, 3)
    )
    if not known:
        raise ValueError(
            f"TIFF samples of {depth} bits, photometric interpretation {photometric}, compression "
            f"{compression}; save it as gray or RGB of 8 or 16 bits"
        )
    extra = _number(first, _EXTRA) if count > colors else 0
    columns = first.get(_TILE_WIDTH, first[_WIDTH])[0]
    negative = photometric == _WHITE_IS_ZERO
    together = 1 if _planes(first) > 1 else count
    return _Layout(together, depth, kind, file.order, predictor, columns, negative, extra % 3)


def _as_bytes(first: Tags, layout: _Layout, plane: int) -> Tags:
    """Returns a directory that declares each byte of a plane to be an 8-bit gray level."""
    listed = {_STRIPS, _STRIP_SIZES, _TILES, _TILE_SIZES}
    copied = {_HEIGHT, _COMPRESSION, _FILL_ORDER, _ROWS, _TILE_HEIGHT, *listed} & first.keys()
    made = {tag: first[tag] for tag in copied}
    for tag in listed & copied:
        count = len(made[tag]) // _planes(first)
        made[tag] = made[tag][plane * count : (plane + 1) * count]
    across = -(-first[_WIDTH][0] // layout.columns)
    if _TILE_WIDTH in first:
        made[_TILE_WIDTH] = (layout.row_bytes,)
    one = {_BITS: (8,), _PHOTOMETRIC: (1,), _SAMPLES: (1,)}
    return made | one | {_WIDTH: (across * layout.row_bytes,)}


def _end(directory: Tags) -> int:
    """Returns the offset at which the pixels end, for a directory that `_as_bytes` made."""
    starts = directory.get(_STRIPS) or directory.get(_TILES, ())
    sizes = directory.get(_STRIP_SIZES) or directory.get(_TILE_SIZES, ())
    if _number(directory, _COMPRESSION) == 1:  # Pillow does not use the stated sizes.
        (width,), (height,) = directory[_WIDTH], directory[_HEIGHT]
        rows = min(height, directory.get(_ROWS, (height,))[0])
        sizes = [width * max(0, min(rows, height - rows * n)) for n in range(len(starts))]
        if _TILES in directory:
            sizes = [directory[_TILE_WIDTH][0] * directory[_TILE_HEIGHT][0]] * len(starts)
    return max(map(sum, zip(starts, sizes, strict=False)), default=0)


def _decode(
    planes: list[bytes], layout: _Layout, width: int, image: Image.Image, notes: list[str]
) -> tuple[UInt8[np.ndarray, "h w *c"], UInt8[np.ndarray, "h w"] | None]:
    """Returns gray or RGB levels, and alpha if there is any.

    The gray levels of `image` are the bytes of all samples, or of the first ones if each sample has
    its own plane; then `planes` are the files of the others. Width is in pixels. A sentence about
    left-out samples or an unusual range is added to `notes`.
    """
    parts = []
    for each in (image, *(Image.open(io.BytesIO(plane)) for plane in planes)):
        rows = np.asarray(each)
        starts = range(0, rows.shape[1], layout.row_bytes)
        tiles = [_unpacked(rows[:, at : at + layout.row_bytes], layout) for at in starts]
        parts.append(np.concatenate(tiles, axis=1)[:, :width])
    samples = np.concatenate(parts, axis=2)
    colors = samples[..., :3] if samples.shape[2] >= 3 else samples[..., 0]
    alpha, extra = None, samples.shape[2] in (2, 4)
    if extra and layout.alpha:
        alpha = eight_bits(samples[..., -1], [], layout.bits)
        if layout.alpha == 1:
            last = samples[..., -1:] if colors.ndim == 3 else samples[..., -1]
            colors = _divided(colors, last, layout.bits)
    elif extra:
        notes.append(_EXTRA_SAMPLES)
    return eight_bits(colors, notes, layout.bits, layout.negative), alpha


def _divided(colors: np.ndarray, alpha: np.ndarray, bits: int) -> np.ndarray:
    """Divides premultiplied colors by their alpha, which has the same range."""
    whole = colors.dtype.kind != "f"
    top = 2 ** (bits - (colors.dtype.kind == "i")) - 1 if whole else 1
    with np.errstate(all="ignore"):
        result = np.where(alpha > 0, colors * (top / alpha.astype(np.float64)), 0)
    return np.minimum(np.rint(result), top).astype(colors.dtype) if whole else result


def _unpacked(rows: np.ndarray, layout: _Layout) -> np.ndarray:
    """Converts rows of bytes to samples (height, columns, samples) and undoes the predictor."""
    height, count = len(rows), layout.samples
    if layout.bits % 8:
        return _of_bits(rows, layout).reshape(height, -1, count)
    dtype = np.dtype(f"{layout.order}{layout.kind}{layout.bits // 8}")
    rows = np.ascontiguousarray(rows)
    if layout.predictor == 3:  # All highest bytes of a row come first (Adobe's technical note 3).
        sums = np.cumsum(rows.reshape(height, -1, count), axis=1, dtype=np.uint8)
        planes = sums.reshape(height, dtype.itemsize, -1).swapaxes(1, 2)
        values = np.ascontiguousarray(planes).view(dtype.newbyteorder(">"))
        return values.reshape(height, -1, count).astype(dtype.newbyteorder("="))
    values = rows.view(dtype).reshape(height, -1, count).astype(dtype.newbyteorder("="))
    if layout.predictor == 2:
        whole = np.dtype(f"u{dtype.itemsize}")
        values = np.cumsum(values.view(whole), axis=1, dtype=whole).view(values.dtype)
    return values


def _of_bits(rows: np.ndarray, layout: _Layout) -> np.ndarray:
    """Unpacks samples of `layout.bits` bits, highest bit first; each row begins at a byte."""
    count = layout.columns * layout.samples
    weights = 2 ** np.arange(layout.bits)[::-1].astype(np.uint16)

    def levels(part: np.ndarray) -> np.ndarray:
        bits = np.unpackbits(part, axis=1, count=count * layout.bits)
        return bits.reshape(len(bits), count, layout.bits) @ weights

    return by_rows(levels, rows)
