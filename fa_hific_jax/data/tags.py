"""Reads and writes tag directories of TIFF 6.0 and BigTIFF, which EXIF and MPO's index use too."""

import struct
from io import BufferedIOBase
from typing import Any, NamedTuple

# struct's codes by type number, two for fractions. Text and undefined bytes stay bytes.
_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "s", 8: "h", 9: "i", 10: "ii"}
_TYPES |= {11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_MOST_VALUES = 2**24
_MARKS = {"<": b"II", ">": b"MM"}

Tags = dict[int, tuple[Any, ...]]


class Header(NamedTuple):
    order: str  # byte order, "<" or ">" as in struct
    big: bool  # True for BigTIFF, whose offsets have 64 bits
    first: int  # offset of the first directory


def header(file: BufferedIOBase) -> Header:
    """Reads the header of a TIFF structure; raises ValueError if the file has none."""
    file.seek(0)
    start = file.read(16)
    for order, mark in _MARKS.items():
        for big, code, size in ((False, "2sHI", 8), (True, "2sHIQ", 16)):
            if len(start) >= size:
                found, version, *_, first = struct.unpack(order + code, start[:size])
                if (found, version) == (mark, 43 if big else 42):
                    return Header(order, big, first)
    raise ValueError("no TIFF structure")


def directory(file: BufferedIOBase, head: Header, offset: int) -> tuple[Tags, int]:
    """Returns the values of each tag and the offset of the next directory, 0 if there is none.

    Tags whose values are damaged or of unknown types are left out. Raises ValueError or
    struct.error if the directory itself is damaged.
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


def with_directory(data: bytes, order: str, tags: dict[int, tuple[int, ...]]) -> bytes:
    """Returns a TIFF with the bytes of another one at their offsets and a directory of integers.

    Only the header differs, and BigTIFF becomes classic TIFF, which holds up to 4 GiB.
    """
    offset = len(data) + len(data) % 2
    place = offset + 6 + 12 * len(tags)
    entries, values = b"", b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            values, packed = values + packed, struct.pack(f"{order}I", place + len(values))
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + packed
    head = _MARKS[order] + struct.pack(f"{order}HI", 42, offset)
    count = struct.pack(f"{order}H", len(tags))
    return head + data[8:].ljust(offset - 8, b"\0") + count + entries + bytes(4) + values


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
    data = file.read(size)
    return struct.unpack(form, data) if len(data) == size else ()


def _unpack(file: BufferedIOBase, form: str) -> tuple[Any, ...]:
    size = struct.calcsize(form)
    data = file.read(size)
    if len(data) < size:
        raise ValueError("its tags are truncated")
    return struct.unpack(form, data)
