"""Parses what Pillow does not report of AVIF and HEIC: color space and brands (ISO 14496-12)."""

import struct
from io import BufferedIOBase

from fa_hific_jax.data import color
from fa_hific_jax.data.parsed import ParsedFile

_HEAD = 2**16  # bytes at the start that contain the description of any still picture
_AVIF = {b"avif", b"avis"}
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"}
_UNSPECIFIED = 2


def brands(start: bytes) -> tuple[bytes, ...]:
    """Returns the brands in the first box of a file; none if it is no `ftyp` box."""
    if start[4:8] != b"ftyp":
        return ()
    body = start[8 : int.from_bytes(start[:4], "big")]
    return tuple(body[at : at + 4] for at in (0, *range(8, len(body), 4)))


def parse(file: BufferedIOBase) -> ParsedFile:
    """Parses an AVIF file, or a HEIC file for which it registers pillow-heif.

    Raises:
      ValueError: the file is HEIC and pillow-heif is not installed.
    """
    head = file.read(_HEAD)
    file.seek(0)
    named = brands(head)
    if _HEIC & set(named) and not _AVIF & set(named):
        _register_heic()
    notes = ["its HDR gain map is left out"] if b"tmap" in named else []
    space = None
    place = head.find(b"colrnclx")
    if place >= 0 and len(head) >= place + 12:
        primaries, transfer = struct.unpack_from(">HH", head, place + 8)
        space = color.coded(
            1 if primaries == _UNSPECIFIED else primaries,
            13 if transfer == _UNSPECIFIED else transfer,
        )
        if space is None:
            notes.append(
                f"its color space with code points {primaries}/{transfer} is unknown and was "
                "ignored"
            )
    return ParsedFile(file, space=space, notes=tuple(notes))


def _register_heic() -> None:
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            "HEIC; install pillow-heif, or save it as JPEG, PNG or AVIF first"
        ) from error
    pillow_heif.register_heif_opener()
