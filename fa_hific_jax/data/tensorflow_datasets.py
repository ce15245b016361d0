"""Reads images of prepared TensorFlow Datasets, with random access and without TensorFlow."""

import os
import re
from typing import Any

import numpy as np

from fa_hific_jax.data.array_records import Records, array_record_module
from fa_hific_jax.data.image_names import reason
from fa_hific_jax.errors import UserError

# NAME[/CONFIG][:VERSION][:SPLIT]
_SPEC = re.compile(r"(?P<name>[^:]+(:\d+\.\d+\.\d+)?)(:(?P<split>.+))?")


class TensorFlowDataset(Records):
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
