"""What an evaluation keeps in its folder: rows, pictures and bits, each with the key of its origin.

A row, the decoded picture and the bits of its file carry the same key. So a row of an earlier run
is taken only if all of them are there and nothing has overwritten them.
"""

import contextlib
import dataclasses
import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image as PilImage
from PIL.PngImagePlugin import PngInfo

from fa_hific_jax.evaluation.results import plain, replace_file, writing_to

Image = UInt8[np.ndarray, "_ _ 3"]

_KEY = "evaluation"  # name of the PNG text that holds the key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """Result of coding one image at one point of one codec, with its metrics.

    Files are relative to the folder of the results. Before `coded`, sizes and times are zero;
    before the image is measured, `measured_with` is empty.
    """

    bytes: int = 0  # size of the whole file
    bpp: float = 0.0  # 8 * bytes / (width * height)
    bpp_estimated: float | None = None  # None for a classical codec
    setting: str = ""  # setting of a classical codec, in words
    seconds_encode: float = 0.0
    seconds_decode: float = 0.0
    file: str  # the decoded picture
    bits: str | None  # bits of each latent position, None for a classical codec
    image: str
    sha256: str  # hash of the original's size and pixels
    codec: str
    point: str
    width: int
    height: int
    values: Mapping[str, float | None] = dataclasses.field(default_factory=dict)  # by metric
    not_measured: Mapping[str, str] = dataclasses.field(default_factory=dict)  # why one is None
    key: str  # hash of the name and of everything that determines the coding
    measured_with: str = ""  # hash of the metrics and of their weights

    def coded(self, size: int, seconds: tuple[float, float], **fields: Any) -> "Row":
        """Returns the row of a file of `size` bytes that took so long to encode and to decode."""
        bpp = 8 * size / (self.width * self.height)
        times = {"seconds_encode": seconds[0], "seconds_decode": seconds[1]}
        return dataclasses.replace(self, bytes=size, bpp=bpp, **times, **fields)

    def entry(self) -> dict[str, Any]:
        """Returns what results.json holds of the row: all but the two hashes for resuming."""
        fields = plain(dataclasses.asdict(self))
        return {name: v for name, v in fields.items() if name not in ("key", "measured_with")}

    def is_kept(self, folder: Path) -> bool:
        """Returns True if the picture and the bits of the row are still there."""
        if key_of(folder / self.file) != self.key:
            return False
        return not self.bits or bool(read_npz(folder / self.bits).get("key") == self.key)


class RowLog:
    """The finished rows in a folder: those of every process, of this run and of earlier runs.

    Process 0 appends to rows.jsonl, process n to rows.n.jsonl. Rows that another process adds are
    found at once, so processes that share a folder, even without knowing of each other, neither
    lose a row nor repeat one. A line that is not a whole row is ignored.
    """

    def __init__(self, folder: Path, process: int = 0):
        self._path = folder / ("rows.jsonl" if process == 0 else f"rows.{process}.jsonl")
        self._rows: dict[tuple[str, str | None], Row] = {}  # by key and metrics, None for any
        self._read: Counter[Path] = Counter()  # number of bytes already read from each file
        with writing_to(folder, "name another folder with --out"):
            folder.mkdir(parents=True, exist_ok=True)
            with self._path.open("a+b") as file:
                file.seek(0)
                # A process killed while writing leaves an incomplete last line behind.
                file.truncate(file.read().rfind(b"\n") + 1)

    def get(self, key: str, measured_with: str) -> Row | None:
        """Returns the row of a key: one with these metrics, otherwise the last with others."""
        for path in sorted(self._path.parent.glob("rows*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read[path])
                whole, end, _ = file.read().rpartition(b"\n")
            self._read[path] += len(whole + end)
            for line in whole.splitlines():
                with contextlib.suppress(ValueError, TypeError):
                    fields = json.loads(line)
                    if len(fields) == len(dataclasses.fields(Row)):
                        row = Row(**fields)
                        self._rows[row.key, row.measured_with] = self._rows[row.key, None] = row
        return self._rows.get((key, measured_with)) or self._rows.get((key, None))

    def add(self, row: Row) -> Row:
        """Appends a row, and returns it; or returns another process's row that was there before."""
        found = self.get(row.key, row.measured_with)
        if found and found.measured_with == row.measured_with:
            return found
        line = json.dumps(plain(dataclasses.asdict(row)), allow_nan=False).encode() + b"\n"
        with writing_to(self._path, "free some space, then give the same command again to resume"):
            # One write to a file opened for appending: lines of two processes do not mix.
            with self._path.open("ab", buffering=len(line) + 1) as file:
                file.write(line)
        return row


def original_file(image: str) -> str:
    """Returns the place of the original of an image, relative to the folder of the results."""
    return f"originals/{_safe(image)}.png"


def decoded_files(image: str, codec: str, point: str) -> tuple[str, str]:
    """Returns the places of a decoded picture and of the bits of its file."""
    name = _safe(".".join(filter(None, [image, codec, point.replace(" ", "_")])))
    return f"reconstructions/{name}.png", f"bits/{name}.npz"


def _safe(name: str) -> str:
    return re.sub(r"[/\\:\0]", "_", name)


def read_png(path: Path) -> Image:
    """Returns the pixels of a picture."""
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
