"""Reads and writes tag directories of TIFF 6.0 and BigTIFF, which EXIF and MPO's index use too."""

import io
import struct
from io import BufferedIOBase
from typing import Any, NamedTuple

# struct's codes by type number, two for fractions. Text and undefined bytes stay bytes.
_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "s", 8: "h", 9: "i", 10: "ii"}
_TYPES |= {11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_MOST_VALUES = 2**24

Tags = dict[int, tuple[Any, ...]]


class Header(NamedTuple):
    """The header of a TIFF structure."""

    order: str  # byte order, "<" or ">" as in struct
    big: bool  # True for BigTIFF, whose offsets have 64 bits
    first: int  # offset of the first directory


def header(file: BufferedIOBase) -> Header:
    """Reads the header of a TIFF structure; raises ValueError if the file has none."""
    file.seek(0)
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    version = struct.unpack(f"{order}H", start[2:4])[0] if order and len(start) >= 8 else 0
    if version == 42:
        return Header(order or "", False, struct.unpack(f"{order}I", start[4:8])[0])
    if version == 43 and len(start) == 16:
        return Header(order or "", True, struct.unpack(f"{order}Q", start[8:])[0])
    raise ValueError("no TIFF structure")


def directory(file: BufferedIOBase, head: Header, offset: int) -> tuple[Tags, int]:
    """Returns the values of each tag and the offset of the next directory, 0 if there is none.

    Tags whose values are damaged or of unknown types are left out.

    Raises:
      ValueError, struct.error: the directory itself is damaged.
    """
    count_code, entry_code = ("Q", "HHQ8s") if head.big else ("H", "HHI4s")
    file.seek(offset)
    (count,) = _unpack(file, head.order + count_code)
    if count > 65535:
        raise ValueError("damaged tags")
    entries = [_unpack(file, head.order + entry_code) for _ in range(count)]
    (following,) = _unpack(file, head.order + ("Q" if head.big else "I"))
    values = {tag: _values(file, head, *entry) for tag, *entry in entries}
    return {tag: found for tag, found in values.items() if found}, following


def with_directory(data: bytes, head: Header, tags: dict[int, tuple[int, ...]]) -> bytes:
    """Appends a directory of integers to a file and makes it the first one.

    Other bytes keep their offsets.
    """
    offset = len(data) + len(data) % 2
    count_code, kind, code = ("Q", 16, "Q") if head.big else ("H", 4, "I")
    room = struct.calcsize(f"={code}")
    start = struct.calcsize(f"={count_code}{code}") + len(tags) * (4 + 2 * room)
    entries, values = b"", b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"{head.order}{len(numbers)}{code}", *numbers)
        if len(numbers) > 1:
            place = offset + start + len(values)
            values += packed
            packed = struct.pack(head.order + code, place)
        entries += struct.pack(f"{head.order}HH{code}", tag, kind, len(numbers)) + packed
    count = struct.pack(head.order + count_code, len(tags))
    first = struct.pack(head.order + code, offset)
    begin = data[: 8 if head.big else 4] + first
    data = begin + data[len(begin) :] + bytes(len(data) % 2)
    return data + count + entries + bytes(room) + values


def place_of(data: bytes, tag: int) -> int | None:
    """Returns the offset of a tag's 4-byte value in the first directory, None if it is absent."""
    head = header(io.BytesIO(data))
    (count,) = struct.unpack_from(f"{head.order}H", data, head.first)
    for at in range(head.first + 2, head.first + 2 + 12 * count, 12):
        if struct.unpack_from(f"{head.order}H", data, at)[0] == tag:
            return at + 8
    return None


def _values(
    file: BufferedIOBase, head: Header, kind: int, count: int, inline: bytes
) -> tuple[Any, ...]:
    code = _TYPES.get(kind)
    if code is None or count > _MOST_VALUES:
        return ()
    form = f"{head.order}{count * len(code)}{code[0]}"
    size = struct.calcsize(form)
    if size <= len(inline):
        return struct.unpack(form, inline[:size])
    file.seek(struct.unpack(head.order + ("Q" if head.big else "I"), inline)[0])
    try:
        return _unpack(file, form)
    except ValueError:
        return ()


def _unpack(file: BufferedIOBase, form: str) -> tuple[Any, ...]:
    size = struct.calcsize(form)
    data = file.read(size)
    if len(data) < size:
        raise ValueError("its tags are truncated")
    return struct.unpack(form, data)
