"""Reads encoded images from ArrayRecord shards such as those that `fa-hific pack` writes."""

import bisect
import importlib
import itertools
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import grain
import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.data import image_names, images
from fa_hific_jax.data.image_names import reason
from fa_hific_jax.errors import UserError, shown

MARK = ".array_record"  # part of the name of every shard, also with TensorFlow Datasets
MANIFEST = "manifest.json"
_OPENING_THREADS = 32  # Opening a shard mostly waits for the disk or the network.


class ArrayRecords:
    """Images in ArrayRecord shards; each record holds the bytes of one image file.

    The pattern is a folder to search for shards, a glob or a single shard, local or in a bucket.

    Raises:
      UserError: there are no shards, a shard is damaged, `fa-hific pack` has not finished, or this
        platform has no ArrayRecord. Reading a damaged record raises it too.
    """

    def __init__(self, pattern: str):
        array_record_module(pattern)
        self._paths = image_names.find(pattern, lambda name: MARK in name)
        if not self._paths:
            raise UserError(
                f"{pattern}: no ArrayRecord shards here; expected a folder or glob with *{MARK}* "
                "files, which `fa-hific pack` writes"
            )
        _check_finished(pattern)
        with ThreadPoolExecutor(_OPENING_THREADS) as pool:
            self._shards = list(pool.map(_open, self._paths))
        self._ends = list(itertools.accumulate(len(shard) for shard in self._shards))
        if not len(self):
            raise UserError(f"{pattern}: the ArrayRecord shards here hold no images")

    @property
    def names(self) -> list[str]:
        return [f"record-{i:07d}" for i in range(len(self))]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        index = range(len(self))[index]
        shard = bisect.bisect_right(self._ends, index)
        position = index - self._ends[shard] + len(self._shards[shard])
        name = f"{self._paths[shard]}, record {position}"
        return decode_record(lambda: self._shards[shard][position], name, "pack the images again")


def decode_record(read: Callable[[], bytes], name: str, remedy: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes the image file that `read` returns; raises UserError if it is damaged."""
    try:
        data = read()
    except Exception as error:  # The type depends on what is damaged.
        raise UserError(f"{name}: cannot be read ({reason(error)}): {remedy}") from error
    return images.decode(data, name)


def array_record_module(name: str) -> ModuleType:
    """Returns the module with ArrayRecord's reader and writer; raises UserError without it."""
    try:
        return importlib.import_module("array_record.python.array_record_module")
    except ImportError as error:
        raise UserError(
            f"{name}: ArrayRecord cannot be used here ({reason(error)}); it comes with Grain on "
            "Linux and macOS but not on Windows: use a folder of images"
        ) from error


def check_name(name: str) -> None:
    """Raises UserError for a name that is not UTF-8, which ArrayRecord requires."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{shown(name)}: the name is not UTF-8, which ArrayRecord needs: rename it"
        ) from error


def _open(path: str) -> Any:  # Grain's class has no methods on Windows, so no type is named.
    check_name(path)
    try:
        return grain.sources.ArrayRecordDataSource([path])
    except Exception as error:
        raise UserError(
            f"{path}: is not a whole ArrayRecord file ({reason(error)}): copy or pack it again"
        ) from error


def _check_finished(pattern: str) -> None:
    manifest = Path(pattern).expanduser() / MANIFEST
    if image_names.is_remote(pattern) or not manifest.is_file():
        return
    try:
        packed = json.loads(manifest.read_text("utf-8"))
        missing = packed["shards"] - len(packed["finished"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{manifest}: cannot be read ({error!r}): pack the images again") from error
    if missing:
        raise UserError(
            f"{pattern}: {missing} of {packed['shards']} shards are missing: run the same "
            "`fa-hific pack` command again; it resumes where it stopped"
        )
