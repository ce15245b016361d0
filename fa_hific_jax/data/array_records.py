"""Encoded images in ArrayRecord shards, as `fa-hific pack` writes them."""

import bisect
import importlib
import itertools
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import grain
import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.data import images, listing
from fa_hific_jax.errors import UserError, shown

MARK = ".array_record"  # within the name of every shard, ours and those of TensorFlow Datasets
MANIFEST = "manifest.json"
_OPENED_AT_ONCE = 32  # shards whose number of records is read, mostly waiting


class ArrayRecords:
    """Images in ArrayRecord shards, each record the bytes of one image file of any kind.

    Args:
      pattern: a folder, which is searched for shards, a glob, or one shard; also gs://...

    Raises:
      UserError: no shards, damaged ones, unfinished ones of `fa-hific pack`, or no ArrayRecord on
        this platform. A record that is damaged raises it when it is read.
    """

    def __init__(self, pattern: str):
        array_record_module(pattern)
        self._paths = listing.find(pattern, lambda name: MARK in name)
        if not self._paths:
            raise UserError(
                f"{pattern}: no ArrayRecord shards here; expected a folder or glob with *{MARK}* "
                "files, which `fa-hific pack` writes"
            )
        _check_finished(pattern)
        check_names(self._paths)
        with ThreadPoolExecutor(_OPENED_AT_ONCE) as pool:
            self._shards = list(pool.map(_open, self._paths))
        self._ends = list(itertools.accumulate(len(shard) for shard in self._shards))
        if not len(self):
            raise UserError(f"{pattern}: the ArrayRecord shards here hold no images")
        self.names = Numbered("record", len(self))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        index = range(len(self))[index]
        shard = bisect.bisect_right(self._ends, index)
        position = index - (self._ends[shard - 1] if shard else 0)
        name = f"{self._paths[shard]}, record {position}"
        try:
            data = self._shards[shard][position]
        except Exception as error:  # of several types, depending on what is damaged
            raise UserError(
                f"{name}: cannot be read ({listing.reason(error)}): pack again"
            ) from error
        return images.decode(data, name)


class Numbered(Sequence[str]):
    """The names "PREFIX-0000000", "PREFIX-0000001", ... without a list of millions in memory."""

    def __init__(self, prefix: str, count: int):
        self._prefix, self._count = prefix, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(self._count)[index]]
        return f"{self._prefix}-{range(self._count)[index]:07d}"


def array_record_module(name: str) -> ModuleType:
    """The module of ArrayRecord's reader and writer.

    Raises UserError, beginning with `name`, where it does not exist.
    """
    try:
        return importlib.import_module("array_record.python.array_record_module")
    except ImportError as error:
        raise UserError(
            f"{name}: ArrayRecord cannot be used here ({listing.reason(error)}); it comes with "
            "Grain on Linux and macOS but not on Windows: use a folder of images"
        ) from error


def check_names(names: Iterable[str]) -> None:
    """Raises UserError for the first name that is not UTF-8: ArrayRecord takes no other."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{shown(name)}: is not UTF-8, which ArrayRecord needs: choose another name"
            ) from error


def _open(path: str) -> Any:  # Grain's class for it, which on Windows has no methods
    try:
        return grain.sources.ArrayRecordDataSource([path])
    except Exception as error:
        raise UserError(
            f"{path}: is not a whole ArrayRecord file ({listing.reason(error)}): "
            "copy or pack it again"
        ) from error


def _check_finished(pattern: str) -> None:
    manifest = Path(pattern).expanduser() / MANIFEST
    if listing.is_remote(pattern) or not manifest.is_file():
        return
    try:
        packed = json.loads(manifest.read_text("utf-8"))
        missing = packed["shards"] - len(packed["finished"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{manifest}: cannot be read ({error!r}): pack again") from error
    if missing:
        raise UserError(
            f"{pattern}: {missing} of {packed['shards']} shards are missing: give the same "
            "`fa-hific pack` command again, it goes on where it stopped"
        )
