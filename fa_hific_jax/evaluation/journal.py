"""rows.jsonl: what is finished, so that an evaluation that was stopped goes on where it was.

One row a line, appended as soon as it is known. Each process writes a file of its own and reads
those of all.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation.results import plain


class Journal:
    """The finished rows of an evaluation in `folder`; `process` is the number of this process.

    A row names the `file` of its picture. Of rows with the same one, which a model that was trained
    on has written over the earlier's, only the last is known.

    Raises:
      UserError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, process: int = 0):
        self._path = folder / ("rows.jsonl" if process == 0 else f"rows.{process}.jsonl")
        self._by_file: dict[str, dict[str, Any]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _cut_half_line(self._path)
            for path in sorted(folder.glob("rows*.jsonl")):
                self._by_file |= {row["file"]: row for row in _read(path)}
            self._file = self._path.open("ab")
        except OSError as error:
            raise UserError(
                f"{folder} cannot hold results ({error.strerror}): name another folder with --out"
            ) from error

    def get(self, key: str, file: str) -> dict[str, Any] | None:
        """The row that was added under a key with this file, by any process, now or earlier."""
        row = self._by_file.get(file)
        return row if row and row["key"] == key else None

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Writes a row, to be found again whatever happens from here on."""
        stored = {**plain(row), "key": key}
        try:
            self._file.write(json.dumps(stored, allow_nan=False).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"{self._path} cannot be written ({error.strerror}): make room, then give the same "
                "command again, which goes on from here"
            ) from error
        self._by_file[row["file"]] = stored

    def close(self) -> None:
        self._file.close()


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file; lines that are no whole row are as if they were not there."""
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and {"key", "file", "bits"} <= row.keys():
            yield row


def _cut_half_line(path: Path) -> None:
    """A process that was killed while it wrote has left a line without its end."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        data = file.read()
        if not data.endswith(b"\n"):
            file.truncate(data.rfind(b"\n") + 1)
            os.fsync(file.fileno())
