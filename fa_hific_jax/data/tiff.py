"""TIFF whose samples Pillow reads wrongly or not at all, and raw files, which are not read.

Pillow is given such a TIFF under other tags, as gray levels of 8 bits, one for each byte of a row:
so it still undoes the compression, whatever it is, and the samples are made of the bytes here.
"""

import io
import struct
from collections.abc import Iterator
from io import BufferedIOBase

import numpy as np
from jaxtyping import Shaped

from fa_hific_jax.data import tags
from fa_hific_jax.data.parsed import EXTRA_SAMPLES, FURTHER_PAGES, TRUNCATED, Layout, ParsedFile
from fa_hific_jax.data.tags import Header, Tags

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_FILL_ORDER, _STRIPS, _SAMPLES, _ROWS, _STRIP_SIZES, _PLANAR = 266, 273, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES = 317, 322, 323, 324, 325
_SUB_DIRECTORIES, _EXTRA, _FORMAT, _DNG_VERSION = 330, 338, 339, 50706
_ORIENTATION, _INFO = 274, {34675: "icc_profile", 700: "xmp"}
_WHITE_IS_ZERO, _RGB, _YCBCR, _RAW_KINDS = 0, 2, 6, (32803, 34892)
# Integers that decide about pixels; 292 and 293 are options of fax, 320 is a palette, 332 stands
# for inks and 530 for the subsampling of chroma.
_OF_PIXELS = (256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320)
_OF_PIXELS += (322, 323, 324, 325, 332, 338, 339, 530)
_BYTEWISE = (1, 5, 8, 32773, 32946, 34925, 50000)  # compressions of bytes, not of pixels
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
_RAW = "a camera's raw file, of which only a preview is an image: develop it to TIFF or JPEG first"
_THUMBNAIL = (
    "its first page is a smaller copy of a later one: save the picture itself as TIFF or PNG first"
)
_STRIP = 2**18  # samples unpacked at once


def parse(file: BufferedIOBase) -> ParsedFile:
    """The parts of a TIFF; raises ValueError, with the reason, where it is not one to read."""
    try:
        head = tags.header(file)
        first, following = tags.directory(file, head, head.first)
        size = first[_WIDTH][0], first[_HEIGHT][0]
        others = list(_other_directories(file, head, first, following))
    except (ValueError, LookupError, struct.error):
        file.seek(0)
        return ParsedFile(file)  # Pillow's to judge
    file.seek(8)
    canon = file.read(4) == b"CR\2\0" and head.first == 16
    if canon or _DNG_VERSION in first or _is_raw([first, *others]):
        raise ValueError(_RAW)
    if any(_larger(other, first) for other in others):
        raise ValueError(_THUMBNAIL)
    file.seek(0)
    orientation = int((first.get(_ORIENTATION) or (1,))[0])
    info = {name: _blob(first[tag]) for tag, name in _INFO.items() if tag in first}
    if _pillow_reads(first):
        extra = first.get(_EXTRA, ())
        notes = (EXTRA_SAMPLES,) if len(extra) > 1 or extra[:1] == (0,) else ()
        if head.big and head.order == ">":  # Pillow takes it for a TIFF of 32 bits.
            notes += (FURTHER_PAGES,) if following else ()
            file = _with_short_offsets(file.read(), first)
        return ParsedFile(file, size, info, notes=notes, orientation=orientation)
    layout = _layout(first, head)
    data = file.read()
    directories = [_as_bytes(first, layout, plane) for plane in range(_planes(first))]
    if any(_end(each) > len(data) for each in directories):
        raise ValueError(TRUNCATED)
    if head.big and head.order == ">":
        planes = [_with_short_offsets(data, each) for each in directories]
    else:
        planes = [io.BytesIO(tags.with_directory(data, head, each)) for each in directories]
    return ParsedFile(
        planes[0],
        size,
        info,
        notes=(FURTHER_PAGES,) if following else (),
        orientation=orientation,
        directory=head.first,
        layout=layout,
        planes=tuple(planes[1:]),
    )


def _with_short_offsets(data: bytes, directory: Tags) -> io.BytesIO:
    """A big-endian BigTIFF as a classic TIFF with what the directory tells of the pixels."""
    numbers = {tag: directory[tag] for tag in _OF_PIXELS if tag in directory}
    return io.BytesIO(tags.with_directory(b"MM\0*" + data[4:], Header(">", False, 0), numbers))


def _blob(values: tuple) -> bytes:
    """What a tag of bytes holds, be they of the type for text or for numbers."""
    if isinstance(values[0], bytes):
        return values[0]
    return bytes(values) if all(0 <= value < 256 for value in values) else b"damaged"


def samples(
    planes: list[Shaped[np.ndarray, "h bytes"]], layout: Layout, width: int
) -> Shaped[np.ndarray, "h w n"]:
    """The samples of a picture's rows of bytes, or of those of each plane, in a native type."""
    return np.concatenate([_of_plane(rows, layout, width) for rows in planes], axis=2)


def _of_plane(rows: np.ndarray, layout: Layout, width: int) -> np.ndarray:
    step = _row_bytes(layout, layout.columns)
    parts = [_unpacked(rows[:, at : at + step], layout) for at in range(0, rows.shape[1], step)]
    values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return values[:, :width]


def describe(file: BufferedIOBase) -> str:
    """What kind of TIFF this is, for a sentence."""
    try:
        head = tags.header(file)
        return _description(tags.directory(file, head, head.first)[0])
    except (ValueError, LookupError, struct.error):
        return "a TIFF whose tags are damaged"


def _description(first: Tags) -> str:
    bits, kind = first.get(_BITS, (1,)), _KINDS.get(first.get(_FORMAT, (1,))[0], "complex")
    kind = {"u": "unsigned", "i": "signed", "f": "floating-point"}.get(kind, kind)
    return (
        f"a TIFF of {first.get(_SAMPLES, (1,))[0]} {kind} samples of "
        f"{' '.join(map(str, dict.fromkeys(bits)))} bits, photometric interpretation "
        f"{first.get(_PHOTOMETRIC, (0,))[0]}, compression {first.get(_COMPRESSION, (1,))[0]}"
    )


def _other_directories(
    file: BufferedIOBase, head: Header, first: Tags, following: int
) -> Iterator[Tags]:
    """Of pages and of what hangs below the first, damaged ones left out."""
    offsets = [*first.get(_SUB_DIRECTORIES, ()), following]
    seen = {head.first, 0}
    while offsets and len(seen) < 1000:
        offset = offsets.pop(0)
        if offset in seen:
            continue
        seen.add(offset)
        try:
            found, after = tags.directory(file, head, offset)
        except (ValueError, struct.error):
            continue
        offsets.append(after)
        yield found


def _is_raw(directories: list[Tags]) -> bool:
    return any(each.get(_PHOTOMETRIC, (0,))[0] in _RAW_KINDS for each in directories)


def _larger(other: Tags, first: Tags) -> bool:
    """Whether the first is told to be, or must be, the smaller copy of another."""
    area = [each.get(_WIDTH, (0,))[0] * each.get(_HEIGHT, (0,))[0] for each in (first, other)]
    told = bool(first.get(_SUBFILE, (0,))[0] & 1)
    below = _SUB_DIRECTORIES in first and not other.get(_SUBFILE, (0,))[0] & 1
    return area[1] > area[0] and (told or below)


def _pillow_reads(first: Tags) -> bool:
    """Whether what Pillow makes of such samples is right, or a refusal."""
    bits, count = first.get(_BITS, (1,)), first.get(_SAMPLES, (1,))[0]
    negative = first.get(_PHOTOMETRIC, (0,))[0] == _WHITE_IS_ZERO
    photometric, raw = first.get(_PHOTOMETRIC, (0,))[0], first.get(_COMPRESSION, (1,))[0] == 1
    if photometric == _YCBCR and raw:
        return False
    if photometric > _RGB and max(bits) <= 16:
        return set(first.get(_FORMAT, (1,))) <= {1, 4}
    usual = len(set(bits)) == 1 and bits[0] in (1, 2, 4, 8, 16)
    unsigned = set(first.get(_FORMAT, (1,))) <= {1, 4}
    apart = count > 1 and first.get(_PLANAR, (1,))[0] == 2
    return usual and unsigned and count != 2 and not (bits[0] == 16 and (negative or apart))


def _layout(first: Tags, head: Header) -> Layout:
    bits, count = set(first.get(_BITS, (1,))), first.get(_SAMPLES, (1,))[0]
    kinds = {_KINDS.get(form, "") for form in first.get(_FORMAT, (1,))}
    predictor = first.get(_PREDICTOR, (1,))[0]
    photometric = first.get(_PHOTOMETRIC, (0,))[0]
    colors = 3 if photometric == _RGB else 1
    depth, kind = max(bits), max(kinds)
    whole_bytes = depth in ({16, 32, 64} if kind == "f" else {8, 16, 32})
    known = (
        len(bits) == len(kinds) == 1
        and photometric <= _RGB
        and kind != ""
        and colors <= count <= 4
        and first.get(_COMPRESSION, (1,))[0] in _BYTEWISE
        and (whole_bytes or (kind == "u" and depth < 16 and predictor == 1))
        and (whole_bytes or _TILE_WIDTH not in first)
        and predictor in (1, 2, 3)
    )
    if not known:
        raise ValueError(f"{_description(first)}; save it as plain gray or RGB of 8 or 16 bits")
    extra = first.get(_EXTRA, (0,))[0] if count > colors else 0
    columns = first.get(_TILE_WIDTH, first[_WIDTH])[0]
    negative = photometric == _WHITE_IS_ZERO
    together = 1 if _planes(first) > 1 else count
    return Layout(together, depth, kind, head.order, predictor, columns, negative, extra % 3)


def _planes(first: Tags) -> int:
    """In how many images of one sample a pixel's samples lie, 1 where they lie side by side."""
    return first.get(_SAMPLES, (1,))[0] if first.get(_PLANAR, (1,))[0] == 2 else 1


def _as_bytes(first: Tags, layout: Layout, plane: int) -> dict[int, tuple[int, ...]]:
    """The directory under which each byte of a plane is a gray level."""
    copied = (_HEIGHT, _COMPRESSION, _FILL_ORDER, _STRIPS, _ROWS, _STRIP_SIZES, _TILE_HEIGHT)
    made = {tag: first[tag] for tag in (*copied, _TILES, _TILE_SIZES) if tag in first}
    for tag in {_STRIPS, _STRIP_SIZES, _TILES, _TILE_SIZES} & made.keys():
        count = len(made[tag]) // _planes(first)
        made[tag] = made[tag][plane * count : (plane + 1) * count]
    across = -(-first[_WIDTH][0] // layout.columns)
    width = _row_bytes(layout, layout.columns)
    if _TILE_WIDTH in first:
        made[_TILE_WIDTH] = (width,)
    one = {_BITS: (8,), _PHOTOMETRIC: (1,), _SAMPLES: (1,)}
    return made | one | {_WIDTH: (across * width,)}


def _end(directory: dict[int, tuple[int, ...]]) -> int:
    """Where the last of the pixels must end, of a directory that `_as_bytes` has made."""
    starts = directory.get(_STRIPS) or directory.get(_TILES, ())
    sizes = directory.get(_STRIP_SIZES) or directory.get(_TILE_SIZES, ())
    if directory.get(_COMPRESSION, (1,))[0] == 1:  # Pillow does not use the stated sizes.
        (width,), (height,) = directory[_WIDTH], directory[_HEIGHT]
        rows = min(height, directory.get(_ROWS, (height,))[0])
        sizes = [width * max(0, min(rows, height - rows * n)) for n in range(len(starts))]
        if _TILES in directory:
            sizes = [directory[_TILE_WIDTH][0] * directory[_TILE_HEIGHT][0]] * len(starts)
    return max(map(sum, zip(starts, sizes, strict=False)), default=0)


def _row_bytes(layout: Layout, width: int) -> int:
    return -(-width * layout.samples * layout.bits // 8)


def _unpacked(rows: np.ndarray, layout: Layout) -> np.ndarray:
    """Samples (height, columns, samples) of rows over which prediction runs."""
    height, count = len(rows), layout.samples
    if layout.bits % 8:
        return _of_bits(rows, layout).reshape(height, -1, count)
    dtype = np.dtype(f"{layout.order}{layout.kind}{layout.bits // 8}")
    rows = np.ascontiguousarray(rows)
    if layout.predictor == 3:  # bytes of like weight side by side, highest first (Adobe's note 3)
        sums = np.cumsum(rows.reshape(height, -1, count), axis=1, dtype=np.uint8)
        planes = sums.reshape(height, dtype.itemsize, -1).swapaxes(1, 2)
        values = np.ascontiguousarray(planes).view(dtype.newbyteorder(">"))
        return values.reshape(height, -1, count).astype(dtype.newbyteorder("="))
    values = rows.view(dtype).reshape(height, -1, count).astype(dtype.newbyteorder("="))
    if layout.predictor == 2:
        whole = np.dtype(f"u{dtype.itemsize}")
        values = np.cumsum(values.view(whole), axis=1, dtype=whole).view(values.dtype)
    return values


def _of_bits(rows: np.ndarray, layout: Layout) -> np.ndarray:
    """Samples that follow each other bit by bit, highest first, rows beginning at a byte."""
    count = layout.columns * layout.samples
    weights = 2 ** np.arange(layout.bits)[::-1].astype(np.uint16)
    values = np.empty((len(rows), count), np.uint16)
    step = max(1, _STRIP // count)
    for start in range(0, len(rows), step):
        bits = np.unpackbits(rows[start : start + step], axis=1, count=count * layout.bits)
        values[start : start + step] = bits.reshape(len(bits), count, layout.bits) @ weights
    return values
