"""Parses TIFF: refuses raw files, and decodes samples that Pillow reads wrongly or not at all.

For such samples, Pillow gets the file with other tags, which declare each byte of a row to be an
8-bit gray level. So Pillow still decompresses the rows, and their bytes are converted here.
"""

import contextlib
import functools
import io
import struct
from collections.abc import Iterator
from io import BufferedIOBase

from fa_hific_jax.data import tags
from fa_hific_jax.data.parsed import FURTHER_PAGES, TRUNCATED, ParsedFile
from fa_hific_jax.data.tags import Header, Tags
from fa_hific_jax.data.tiff_samples import EXTRA_SAMPLES, Layout, decode

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_FILL_ORDER, _STRIPS, _SAMPLES, _ROWS, _STRIP_SIZES, _PLANAR = 266, 273, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES = 317, 322, 323, 324, 325
_SUB_DIRECTORIES, _EXTRA, _FORMAT, _DNG_VERSION = 330, 338, 339, 50706
_ORIENTATION, _INFO = 274, {34675: "icc_profile", 700: "xmp"}
_WHITE_IS_ZERO, _RGB, _YCBCR, _RAW_KINDS = 0, 2, 6, {32803, 34892}
# Tags of integers that decide the pixels, among them options of fax (292, 293), a palette (320),
# inks (332) and chroma subsampling (530).
_OF_PIXELS = (256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320)
_OF_PIXELS += (322, 323, 324, 325, 332, 338, 339, 530)
_BYTEWISE = (1, 5, 8, 32773, 32946, 34925, 50000)  # compressions of bytes, not of pixels
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}  # NumPy's letters of sample formats
_ZERO_BY_DEFAULT = (_SUBFILE, _WIDTH, _HEIGHT, _PHOTOMETRIC, _EXTRA)  # other tags default to 1


def parse(file: BufferedIOBase) -> ParsedFile:
    """Parses a TIFF file; one whose tags are damaged is left to Pillow.

    Raises ValueError if the file cannot be read; the message is the reason.
    """
    try:
        head = tags.header(file)
        first, following = tags.directory(file, head, head.first)
        size = first[_WIDTH][0], first[_HEIGHT][0]
        others = list(_other_directories(file, head, first, following))
    except (ValueError, LookupError, struct.error):
        return ParsedFile(file)
    file.seek(8)
    canon = file.read(4) == b"CR\2\0" and head.first == 16
    kinds = {_number(each, _PHOTOMETRIC) for each in (first, *others)}
    if canon or _DNG_VERSION in first or kinds & _RAW_KINDS:
        raise ValueError(
            "a camera's raw file, of which only a preview is an image: convert it to TIFF or JPEG"
        )
    if any(_larger(other, first) for other in others):
        raise ValueError(
            "its first page is a smaller copy of a later one: save the full picture as TIFF or PNG"
        )
    file.seek(0)
    orientation = int(_number(first, _ORIENTATION))
    info = {name: _blob(first[tag]) for tag, name in _INFO.items() if tag in first}
    pages = (FURTHER_PAGES,) if following else ()
    layout = _layout(first, head)
    if layout is None:
        extra = first.get(_EXTRA, ())
        notes = (EXTRA_SAMPLES,) if len(extra) > 1 or extra[:1] == (0,) else ()
        if head.big and head.order == ">":  # Pillow would read it as a classic TIFF.
            notes += pages
            kept = {tag: first[tag] for tag in _OF_PIXELS if tag in first}
            file = io.BytesIO(tags.with_directory(file.read(), head.order, kept))
        return ParsedFile(file, size, info, notes=notes, orientation=orientation)
    data = file.read()
    directories = [_as_bytes(first, layout, plane) for plane in range(_planes(first))]
    if any(_end(each) > len(data) for each in directories):
        raise ValueError(TRUNCATED)
    if len(data) >= 2**32:
        raise ValueError("such a TIFF is read up to 4 GiB; save it as gray or RGB of 8 or 16 bits")
    planes = [io.BytesIO(tags.with_directory(data, head.order, each)) for each in directories]
    return ParsedFile(
        planes[0],
        size,
        info,
        notes=pages,
        orientation=orientation,
        directory=head.first,
        decode=functools.partial(decode, planes[1:], layout, size[0]),
    )


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


def _other_directories(
    file: BufferedIOBase, head: Header, first: Tags, following: int
) -> Iterator[Tags]:
    """Yields the directories of later pages and those below the first, without damaged ones."""
    offsets = [*first.get(_SUB_DIRECTORIES, ()), following]
    seen = {head.first, 0}
    while offsets and len(seen) < 1000:
        offset = offsets.pop(0)
        if offset not in seen:
            seen.add(offset)
            with contextlib.suppress(ValueError, struct.error):
                found, after = tags.directory(file, head, offset)
                offsets.append(after)
                yield found


def _larger(other: Tags, first: Tags) -> bool:
    """Returns True if the first directory describes a smaller copy of the other's picture."""
    area = [_number(each, _WIDTH) * _number(each, _HEIGHT) for each in (first, other)]
    marked = bool(_number(first, _SUBFILE) & 1)
    below = _SUB_DIRECTORIES in first and not _number(other, _SUBFILE) & 1
    return area[1] > area[0] and (marked or below)


def _layout(first: Tags, head: Header) -> Layout | None:
    """Returns the layout of samples that Pillow reads wrongly or not at all, None for others.

    Raises ValueError if such samples are not read here either.
    """
    bits, formats = first.get(_BITS, (1,)), first.get(_FORMAT, (1,))
    count, photometric = _number(first, _SAMPLES), _number(first, _PHOTOMETRIC)
    compression, predictor = _number(first, _COMPRESSION), _number(first, _PREDICTOR)
    if set(formats) <= {1, 4} and (photometric, compression) != (_YCBCR, 1):
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
    return Layout(together, depth, kind, head.order, predictor, columns, negative, extra % 3)


def _as_bytes(first: Tags, layout: Layout, plane: int) -> dict[int, tuple[int, ...]]:
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


def _end(directory: dict[int, tuple[int, ...]]) -> int:
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
