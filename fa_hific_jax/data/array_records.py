"""Reads encoded images from records, such as those of ArrayRecord shards that `pack` writes."""

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import grain
import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.data import image_names, images
from fa_hific_jax.data.image_names import explained
from fa_hific_jax.errors import UserError, shown

MARK = ".array_record"  # part of the name of every shard, also with TensorFlow Datasets
MANIFEST = "manifest.json"


class Records:
    """Images in records, each of the bytes of one image file; a damaged one raises UserError."""

    def __init__(self, spec: str, stem: str, count: int, read: Callable[[int], bytes]):
        if not count:
            raise UserError(f"{spec}: the records here hold no images")
        self._spec, self._count, self._read = spec, count, read
        self._stem = re.sub(r"[^\w.]+", "-", stem).strip("-")

    @property
    def names(self) -> list[str]:
        return [f"{self._stem}-{i:07d}" for i in range(len(self))]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        index = range(len(self))[index]
        name = f"{self._spec}, record {index}"
        with explained(f"{name}: cannot be read", "pack or prepare the images again"):
            data = self._read(index)
        return images.decode(data, name)


class ArrayRecords(Records):
    """Images in ArrayRecord shards.

    The pattern is a folder to search for shards, a glob or a single shard, local or in a bucket.

    Raises:
      UserError: there are no shards, a shard is damaged, `fa-hific pack` has not finished, or this
        platform has no ArrayRecord.
    """

    def __init__(self, pattern: str):
        array_record_module(pattern)
        paths = image_names.find(pattern, lambda name: MARK in name)
        if not paths:
            raise UserError(
                f"{pattern}: no ArrayRecord shards here; expected a folder or glob with *{MARK}* "
                "files, which `fa-hific pack` writes"
            )
        _check_finished(pattern)
        for path in paths:
            check_name(path)
        with explained(f"{pattern}: has a shard that is not whole", "copy or pack it again"):
            records = grain.sources.ArrayRecordDataSource(paths)
            count = len(records)
        super().__init__(pattern, "record", count, records.__getitem__)


def array_record_module(name: str) -> ModuleType:
    """Returns the module with ArrayRecord's reader and writer; raises UserError without it."""
    remedy = "it comes with Grain on Linux and macOS but not on Windows; use a folder of images"
    with explained(f"{name}: ArrayRecord cannot be used here", remedy):
        return importlib.import_module("array_record.python.array_record_module")


def check_name(name: str) -> None:
    """Raises UserError for a name that is not UTF-8, which ArrayRecord requires."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{shown(name)}: the name is not UTF-8, which ArrayRecord needs: rename it"
        ) from error


def _check_finished(pattern: str) -> None:
    manifest = Path(pattern).expanduser() / MANIFEST
    if image_names.is_remote(pattern) or not manifest.is_file():
        return
    with explained(f"{manifest}: cannot be read", "pack the images again"):
        packed = json.loads(manifest.read_text("utf-8"))
        missing = packed["shards"] - len(packed["finished"])
    if missing:
        raise UserError(
            f"{pattern}: {missing} of {packed['shards']} shards are missing: run the same "
            "`fa-hific pack` command again; it resumes where it stopped"
        )
