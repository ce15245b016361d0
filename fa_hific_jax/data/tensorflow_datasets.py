"""Reads images of prepared TensorFlow Datasets, with random access and without TensorFlow."""

import difflib
import os
import re
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.data import listing
from fa_hific_jax.data.array_records import Numbered, array_record_module, decode_record
from fa_hific_jax.errors import UserError

# NAME[/CONFIG][:VERSION][:SPLIT]
_SPEC = re.compile(r"(?P<name>[^:]+(:\d+\.\d+\.\d+)?)(:(?P<split>.+))?")


class TensorFlowDataset:
    """The images of one split, decoded from the encoded bytes that the data set contains.

    The data set must have been prepared as ArrayRecord files: nothing is ever downloaded.

    Args:
      spec: "NAME[/CONFIG][:VERSION][:SPLIT]", for example "coco/2017:train". The default split is
        "train"; "train[:10%]" is a part of it.
      folder: where TensorFlow Datasets keeps its data. "" means the environment variable
        TFDS_DATA_DIR if it is set, else ~/tensorflow_datasets.

    Raises:
      UserError: the data set or the split cannot be opened. For a data set that is not prepared,
        the message contains the command that prepares it.
    """

    def __init__(self, spec: str, folder: str = ""):
        match = _SPEC.fullmatch(spec)
        if match is None:
            raise UserError(
                f"tfds:{spec}: write tfds:NAME/CONFIG:SPLIT, for example tfds:coco/2017:train"
            )
        self._spec, name, split = f"tfds:{spec}", match["name"], match["split"] or "train"
        tfds = _import(self._spec)
        array_record_module(self._spec)
        folder = folder or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
        folder = os.path.expanduser(folder)
        builder = _builder(tfds, name, folder, self._spec)
        self._key, decoders = _image_feature(tfds, builder, self._spec)
        self._records = _records(builder, split, decoders, _how(name, folder), self._spec)
        if not len(self._records):
            raise UserError(f"{self._spec}: the split {split} holds no images")
        self.names = Numbered(re.sub(r"[^\w.]+", "-", f"{name}-{split}").strip("-"), len(self))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        index = range(len(self))[index]
        name = f"{self._spec}, record {index}"
        remedy = "prepare the data set again"
        return decode_record(lambda: self._records[index][self._key], name, remedy)


def _import(spec: str) -> ModuleType:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise UserError(
            f"{spec}: TensorFlow Datasets cannot be imported ({listing.reason(error)}); "
            "run pip install 'fa-hific-jax[tfds]'"
        ) from error
    return tensorflow_datasets


def _how(name: str, folder: str) -> str:
    """Returns the command that downloads and prepares a data set."""
    # `tfds build` would need Apache Beam even for data sets that do not.
    return (
        f'python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}, '
        f"data_dir={folder!r}, file_format='array_record').download_and_prepare()\""
    )


def _builder(tfds: ModuleType, name: str, folder: str, spec: str) -> Any:
    """Returns the builder of a prepared data set, made from its files without network access."""
    from tensorflow_datasets.core import read_only_builder

    try:
        return read_only_builder.builder_from_files(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError:
        pass
    except Exception as error:
        raise UserError(f"{spec}: cannot be opened in {folder}: {listing.reason(error)}") from error
    base, _, config = name.partition(":")[0].partition("/")
    known = tfds.list_builders(with_community_datasets=False)  # These would need the network.
    if base not in known:
        close = difflib.get_close_matches(base, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "see tensorflow.org/datasets/catalog"
        raise UserError(f"{spec}: neither TensorFlow Datasets nor {folder} has {base}: {hint}")
    configs = [each.name for each in tfds.builder_cls(base).BUILDER_CONFIGS]
    if config and config not in configs:
        raise UserError(f"{spec}: {base} has no config {config}: choose one of {configs}")
    raise UserError(
        f"{spec}: is not prepared in {folder} (set TFDS_DATA_DIR to use another folder); this "
        f"command downloads and prepares it, which may take hundreds of GB: {_how(name, folder)}"
    )


def _image_feature(tfds: ModuleType, builder: Any, spec: str) -> tuple[str, dict[str, Any]]:
    """Returns the key of the images, preferably "image", and decoders that skip all images."""
    kinds = {
        key: feature
        for key, feature in dict(builder.info.features).items()
        if isinstance(feature, tfds.features.Image)
    }
    keys = [key for key, feature in kinds.items() if feature.np_dtype == np.uint8]
    if not keys:
        raise UserError(f"{spec}: has no 8-bit images, only {', '.join(builder.info.features)}")
    decoders = {key: tfds.decode.SkipDecoding() for key in kinds}
    return "image" if "image" in keys else keys[0], decoders


def _records(builder: Any, split: str, decoders: dict[str, Any], how: str, spec: str) -> Any:
    try:
        return builder.as_data_source(split, decoders=decoders, file_format="array_record")
    except (NotImplementedError, ValueError) as error:
        if "array_record" not in {each.value for each in builder.info.available_file_formats()}:
            raise UserError(
                f"{spec}: is prepared in {builder.data_path}, but not as ArrayRecord files, which "
                f"random access needs: remove it, then run {how}"
            ) from error
        splits = ", ".join(builder.info.splits)
        raise UserError(f"{spec}: has no split {split}: choose one of {splits}") from error
    except Exception as error:
        raise UserError(f"{spec}: cannot be opened: {listing.reason(error)}") from error
