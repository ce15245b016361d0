"""Prepared data sets of TensorFlow Datasets are read at random, without TensorFlow or a network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_files import saved

from fa_hific_jax.data.sources import open_source
from fa_hific_jax.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra tfds")
shards = pytest.importorskip("array_record.python.array_record_module")


def photograph(index, split="train"):
    rng = np.random.default_rng([index, len(split)])
    return rng.integers(0, 256, (20 + index, 24, 3), np.uint8)


def field(data: bytes) -> bytes:
    """The first field of a protocol buffer, bytes."""
    size = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
    return b"\x0a" + size + data


def example(**features: bytes) -> bytes:
    """A tf.train.Example whose features are one string of bytes each."""
    pairs = (
        field(field(name.encode()) + field(field(field(value))).replace(b"\x0a", b"\x12", 1))
        for name, value in features.items()
    )
    return field(b"".join(pairs))


def feature(kind: str, **content) -> dict:
    return {"pythonClassName": f"tensorflow_datasets.core.features.{kind}", **content}


def prepare(folder: Path, name: str, splits: dict[str, list[bytes]], kind="array_record", **images):
    """Writes a data set as TensorFlow Datasets does: images by NumPy type, and a text."""
    place = folder / name / "1.0.0"
    place.mkdir(parents=True)
    kinds = {"text": feature("text_feature.Text", text={})}
    for key, dtype in images.items():
        shape = {"dimensions": ["-1", "-1", "3" if dtype == "uint8" else "1"]}
        image = {"shape": shape, "dtype": dtype, "encodingFormat": "png"}
        kinds[key] = feature("image_feature.Image", image=image)
    whole = feature("features_dict.FeaturesDict", featuresDict={"features": kinds})
    (place / "features.json").write_text(json.dumps(whole))
    name, _, config = name.partition("/")
    info = {"name": name, "version": "1.0.0", "fileFormat": kind, "splits": []}
    for split, records in splits.items():
        path = str(place / f"{name}-{split}.{kind}-00000-of-00001")
        writer = shards.ArrayRecordWriter(path, "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        lengths = {"shardLengths": [str(len(records))], "filepathTemplate": template}
        info["splits"].append({"name": split, **lengths})
    info |= {"configName": config} if config else {}
    (place / "dataset_info.json").write_text(json.dumps(info))


@pytest.fixture
def folder(tmp_path):
    """A data folder with photographs beside pictures that are not 8 bits, and texts alone."""

    def record(i, split):
        depth, photo = saved(np.full((4, 4), 1000 + i, np.uint16)), saved(photograph(i, split))
        return example(depth=depth, photo=photo, text=b"text")

    counts = {"train": 5, "test": 2}
    splits = {split: [record(i, split) for i in range(count)] for split, count in counts.items()}
    prepare(tmp_path, "tiny_photos/small", splits, depth="uint16", photo="uint8")
    prepare(tmp_path, "sounds", {"train": [example(text=b"text")]})
    prepare(tmp_path, "old", {"train": []}, kind="tfrecord", photo="uint8")
    return str(tmp_path)


def test_images_are_those_that_were_written(folder):
    source = open_source("tfds:tiny_photos/small", folder)
    assert list(source.names) == [f"tiny_photos-small-train-000000{i}" for i in range(5)]
    for i in range(5):
        np.testing.assert_array_equal(source[i], photograph(i))
    with pytest.raises(IndexError):
        source[5]


SPLITS = {":test": 2, ":1.0.0": 5, ":1.0.0:test": 2, ":train[:40%]": 2, ":train+test": 7, "": 5}


@pytest.mark.parametrize("split", SPLITS)
def test_splits_and_versions_are_chosen_by_the_name(folder, split, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", folder)
    source = open_source(f"tfds:tiny_photos/small{split}")
    assert len(source) == len(set(source.names)) == SPLITS[split]
    assert not set("/:[]%+") & set(source.names[0])
    with pytest.raises(UserError, match="is not prepared in /absent"):
        open_source(f"tfds:tiny_photos/small{split}", "/absent")


def test_neither_reading_nor_finding_nothing_loads_tensorflow(folder):
    """Nor, which it would be needed for, asks any bucket."""
    code = f"""
import contextlib, sys
from fa_hific_jax.data.sources import open_source
source = open_source("tfds:tiny_photos/small", {folder!r})
with contextlib.suppress(ValueError):
    open_source("tfds:coko/2017", {folder!r})
print(sum(source[i].shape[0] for i in range(len(source))), "tensorflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "110 False\n"), done.stderr


@pytest.mark.parametrize(
    "spec,said",
    [
        ("", "write tfds:NAME/CONFIG:SPLIT, for example tfds:coco"),
        (":train", "write tfds:NAME/CONFIG:SPLIT"),
        ("tiny_photos/small:validation", "has no split validation: choose one of train, test"),
        ("sounds", "has no 8-bit images, only text"),
        ("old", "but not as ArrayRecord files, which random access needs: remove it, then"),
    ],
)
def test_what_cannot_be_opened_is_named(folder, spec, said):
    with pytest.raises(UserError) as error:
        open_source(f"tfds:{spec}", folder)
    assert str(error.value).startswith(f"tfds:{spec}: ") and said in str(error.value)


@pytest.mark.parametrize("name", ["coco/2017", "coko", "coco/2017:1.1.0"])
def test_a_set_that_is_not_prepared_says_how_and_downloads_nothing(tmp_path, name):
    with pytest.raises(UserError, match="hundreds of GB: python -c") as error:
        open_source(f"tfds:{name}:train", str(tmp_path))
    code = str(error.value).partition('python -c "')[2].removesuffix('"')
    options = f"data_dir='{tmp_path}', file_format='array_record'"
    assert f"tfds.builder('{name}', {options}).download_and_prepare()" in code
    compile(code, "command", "exec")
    assert os.listdir(tmp_path) == []


def test_damaged_records_are_named(folder):
    (shard,) = Path(folder).glob("tiny_photos/small/1.0.0/*train*")
    shard.write_bytes(shard.read_bytes().replace(b"IDAT", b"XXXX", 1))
    source = open_source("tfds:tiny_photos/small", folder)
    with pytest.raises(UserError, match="^tfds:tiny_photos/small, record 0: cannot be read"):
        source[0]
    assert source[1].shape == (21, 24, 3)


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"pip install 'fa-hific-jax\[tfds\]'"):
        open_source("tfds:coco/2017")
