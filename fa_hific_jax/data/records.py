"""Reads encoded images from ArrayRecord shards, also those of TensorFlow Datasets."""

import importlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import grain
import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.data import image_names, images
from fa_hific_jax.data.image_names import explained, reason
from fa_hific_jax.errors import UserError

MARK = ".array_record"  # part of the name of every shard, also with TensorFlow Datasets
MANIFEST = "manifest.json"
# NAME[/CONFIG][:VERSION][:SPLIT]
_SPEC = re.compile(r"(?P<name>[^:]+(:\d+\.\d+\.\d+)?)(:(?P<split>.+))?")


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
    """Images in ArrayRecord shards: those in a folder, a glob or a single one.

    Raises UserError if there are none, one is damaged, `fa-hific pack` has not finished, or this
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
        with explained(f"{pattern}: has a shard that is not whole", "copy or pack it again"):
            # Grain's class has no methods on Windows, so no type is named.
            records = cast(Any, grain.sources.ArrayRecordDataSource(paths))
            count = len(records)
        super().__init__(pattern, "record", count, records.__getitem__)


class TensorFlowDataset(Records):
    """The images of one split, decoded from the encoded bytes that the data set contains.

    The data set must have been prepared as ArrayRecord files: nothing is ever downloaded.

    Args:
      spec: "NAME[/CONFIG][:VERSION][:SPLIT]", for example "coco/2017:train[:10%]"; the default
        split is "train".
      folder: where TensorFlow Datasets keeps its data; by default the environment variable
        TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
      UserError: the data set or the split cannot be opened; the message says how to prepare it.
    """

    def __init__(self, spec: str, folder: str = ""):
        full, match = f"tfds:{spec}", _SPEC.fullmatch(spec)
        if match is None:
            raise UserError(
                f"{full}: write tfds:NAME/CONFIG:SPLIT, for example tfds:coco/2017:train"
            )
        name, split = match["name"], match["split"] or "train"
        folder = folder or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
        array_record_module(full)
        try:
            key, records = _opened(name, split, os.path.expanduser(folder))
        except ImportError as error:
            raise UserError(
                f"{full}: TensorFlow Datasets cannot be imported ({reason(error)}); "
                "run pip install 'fa-hific-jax[tfds]'"
            ) from error
        except Exception as error:  # The type depends on what is damaged.
            raise UserError(f"{full}: {reason(error)}") from error
        super().__init__(full, f"{name}-{split}", len(records), lambda index: records[index][key])


def array_record_module(name: str) -> ModuleType:
    """Returns the module with ArrayRecord's reader and writer; raises UserError without it."""
    remedy = "it comes with Grain on Linux and macOS but not on Windows; use a folder of images"
    with explained(f"{name}: ArrayRecord cannot be used here", remedy):
        return importlib.import_module("array_record.python.array_record_module")


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


def _opened(name: str, split: str, folder: str) -> tuple[str, Any]:
    """Returns the key of the images, preferably "image", and the records with encoded images.

    Raises ValueError if the data set or the split is missing; the message names the remedy.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    # `tfds build` would need Apache Beam even for data sets that do not.
    how = (
        f'python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}, '
        f"data_dir={folder!r}, file_format='array_record').download_and_prepare()\""
    )
    try:  # without network access
        builder: Any = read_only_builder.builder_from_files(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(
            f"is not prepared in {folder} (set TFDS_DATA_DIR to use another folder): if "
            "tensorflow.org/datasets/catalog has this name, this command downloads and prepares "
            f"it, which may take hundreds of GB: {how}"
        ) from error
    if "array_record" not in {each.value for each in builder.info.available_file_formats()}:
        raise ValueError(
            f"is prepared in {builder.data_path}, but not as ArrayRecord files, which random "
            f"access needs: remove it, then run {how}"
        )
    features = builder.info.features.items()
    kinds = {key: kind for key, kind in features if isinstance(kind, tfds.features.Image)}
    keys = [key for key, kind in kinds.items() if kind.np_dtype == np.uint8]
    if not keys:
        raise ValueError(f"has no 8-bit images, only {', '.join(builder.info.features)}")
    decoders = {key: tfds.decode.SkipDecoding() for key in kinds}
    try:
        records = builder.as_data_source(split, decoders=decoders, file_format="array_record")
    except ValueError as error:
        splits = ", ".join(builder.info.splits)
        raise ValueError(f"has no split {split}: choose one of {splits}") from error
    return "image" if "image" in keys else keys[0], records
