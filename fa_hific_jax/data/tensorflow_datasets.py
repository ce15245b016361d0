"""Images of any prepared data set of TensorFlow Datasets, read at random and without TensorFlow."""

import difflib
import os
import re
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.data import images, listing
from fa_hific_jax.data.array_records import Numbered, array_record_module
from fa_hific_jax.errors import UserError

# NAME[/CONFIG][:VERSION][:SPLIT]
_SPEC = re.compile(r"(?P<name>[^:]+(:\d+\.\d+\.\d+)?)(:(?P<split>.+))?")


class TensorFlowDataset:
    """The images of one split, decoded by us from the bytes that the data set holds.

    The data set must have been prepared as ArrayRecord files: nothing is ever downloaded.

    Args:
      spec: "NAME[/CONFIG][:VERSION][:SPLIT]", as "coco/2017:train"; without a split, "train".
        Splits may be parts, "train[:10%]".
      folder: where TensorFlow Datasets keeps its data; "" for the environment variable
        TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises:
      UserError: says what is wrong, and how to prepare what is not there.
    """

    def __init__(self, spec: str, folder: str = ""):
        match = _SPEC.fullmatch(spec)
        if match is None:
            raise UserError(f"tfds:{spec}: write tfds:NAME/CONFIG:SPLIT, as tfds:coco/2017:train")
        self._spec, name, split = f"tfds:{spec}", match["name"], match["split"] or "train"
        tfds = _import(self._spec)
        array_record_module(self._spec)
        folder = os.path.expanduser(folder or _default_folder())
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
        try:
            data = self._records[index][self._key]
        except Exception as error:  # of several types, depending on what is damaged
            raise UserError(
                f"{name}: cannot be read ({listing.reason(error)}): prepare the data set again"
            ) from error
        return images.decode(data, name)


def _import(spec: str) -> ModuleType:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise UserError(
            f"{spec}: TensorFlow Datasets cannot be imported ({listing.reason(error)}); "
            "run pip install 'fa-hific-jax[tfds]'"
        ) from error
    return tensorflow_datasets


def _default_folder() -> str:
    return os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"


def _how(name: str, folder: str) -> str:
    """The command that downloads and prepares a data set."""
    # Not `tfds build`, which needs Apache Beam even for data sets that do not.
    return (
        f'python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}, '
        f"data_dir={folder!r}, file_format='array_record').download_and_prepare()\""
    )


def _builder(tfds: ModuleType, name: str, folder: str, spec: str) -> Any:
    """What reads the prepared files; made from them alone, so that no code looks on the network."""
    from tensorflow_datasets.core import read_only_builder

    try:
        return read_only_builder.builder_from_files(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError:
        pass
    except Exception as error:
        raise UserError(f"{spec}: cannot be opened in {folder}: {listing.reason(error)}") from error
    base, _, config = name.partition(":")[0].partition("/")
    known = tfds.list_builders(with_community_datasets=False)  # those are asked of a bucket
    if base not in known:
        close = difflib.get_close_matches(base, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "see tensorflow.org/datasets/catalog"
        raise UserError(
            f"{spec}: TensorFlow Datasets knows no {base}, nor is one in {folder}: {hint}"
        )
    configs = [each.name for each in tfds.builder_cls(base).BUILDER_CONFIGS]
    if config and config not in configs:
        raise UserError(f"{spec}: {base} has no config {config}: choose one of {configs}")
    raise UserError(
        f"{spec}: is not prepared in {folder} (the environment variable TFDS_DATA_DIR names "
        f"another folder); this downloads and prepares it, which may take hundreds of GB: "
        f"{_how(name, folder)}"
    )


def _image_feature(tfds: ModuleType, builder: Any, spec: str) -> tuple[str, dict[str, Any]]:
    """The key of the images, "image" before others, and what keeps TFDS from decoding any."""
    kinds = {
        key: feature
        for key, feature in dict(builder.info.features).items()
        if isinstance(feature, tfds.features.Image)
    }
    keys = [key for key, feature in kinds.items() if feature.np_dtype == np.uint8]
    if not keys:
        raise UserError(f"{spec}: has no images of 8 bits, only {', '.join(builder.info.features)}")
    decoders = {key: tfds.decode.SkipDecoding() for key in kinds}
    return "image" if "image" in keys else keys[0], decoders


def _records(builder: Any, split: str, decoders: dict[str, Any], how: str, spec: str) -> Any:
    try:
        return builder.as_data_source(split, decoders=decoders, file_format="array_record")
    except (NotImplementedError, ValueError) as error:
        if "array_record" not in {each.value for each in builder.info.available_file_formats()}:
            raise UserError(
                f"{spec}: is prepared in {builder.data_path}, but not as ArrayRecord files, which "
                f"random access needs: remove it, then {how}"
            ) from error
        splits = ", ".join(builder.info.splits)
        raise UserError(f"{spec}: no split {split} here: choose one of {splits}") from error
    except Exception as error:
        raise UserError(f"{spec}: cannot be opened: {listing.reason(error)}") from error
