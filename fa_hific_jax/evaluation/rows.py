"""Rows of an evaluation, and the log rows.jsonl, which outlives the process that measured them."""

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation.results import plain


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


class RowLog:
    """The finished rows in a folder: those of every process, of this run and of earlier runs.

    Process 0 appends to rows.jsonl, process n to rows.n.jsonl. Rows that another process adds are
    found at once. So processes that share a folder, whether they know of each other or not, neither
    lose a row nor repeat one. A line that is not a whole row is ignored.

    Raises:
      UserError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, process: int = 0):
        self._path = folder / ("rows.jsonl" if process == 0 else f"rows.{process}.jsonl")
        self._rows: dict[tuple[str, str | None], Row] = {}  # by key and metrics, None for any
        self._read: Counter[Path] = Counter()  # number of bytes already read from each file
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._path.open("a+b") as file:
                file.seek(0)
                # A process killed while writing leaves an incomplete last line behind.
                file.truncate(file.read().rfind(b"\n") + 1)
        except OSError as error:
            raise UserError(
                f"{folder} cannot hold results ({error.strerror}): name another folder with --out"
            ) from error

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
        """Appends a row that survives the end of the process, and returns it.

        If another process was faster, its row is returned and nothing is written.
        """
        found = self.get(row.key, row.measured_with)
        if found and found.measured_with == row.measured_with:
            return found
        line = json.dumps(plain(dataclasses.asdict(row)), allow_nan=False).encode() + b"\n"
        try:
            # One write to a file opened for appending: lines of two processes do not mix.
            with self._path.open("ab", buffering=len(line) + 1) as file:
                file.write(line)
        except OSError as error:
            raise UserError(
                f"{self._path} cannot be written ({error.strerror}): free some space, then give "
                "the same command again to resume"
            ) from error
        return row
