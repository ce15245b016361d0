"""Prepared data sets of TensorFlow Datasets are read at random, without TensorFlow or a network."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fa_hific_jax.data.sources import open_source
from fa_hific_jax.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra tfds")
pytest.importorskip("array_record", reason="not on this platform")
pytest.importorskip("tensorflow", reason="preparing a set needs TensorFlow: make test-tfc")


def photograph(index, split="train"):
    rng = np.random.default_rng([index, len(split)])
    return rng.integers(0, 256, (20 + index, 24, 3), np.uint8)


with tfds.core.registered.skip_registration():

    class _Base(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _split_generators(self, manager):
            return {split: self._generate_examples(split) for split in ("train", "test")}

    class TinyPhotos(_Base):
        """Five and two small PNG images, beside a label and a second picture that is not 8 bits."""

        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="small"), tfds.core.BuilderConfig("large")]

        def _info(self):
            features = {
                "depth": tfds.features.Image(dtype=np.uint16, shape=(None, None, 1)),
                "label": tfds.features.ClassLabel(num_classes=3),
                "photo": tfds.features.Image(encoding_format="png"),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _generate_examples(self, split):
            for i in range({"train": 5, "test": 2}[split]):
                depth = np.full((4, 4, 1), 1000 + i, np.uint16)
                yield i, {"depth": depth, "label": i % 3, "photo": photograph(i, split)}

    class Sounds(_Base):
        """No images at all."""

        def _info(self):
            features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _generate_examples(self, split):
            yield 0, {"text": split}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder with both sets as ArrayRecord files."""
    folder = tmp_path_factory.mktemp("tfds")
    for kind in (TinyPhotos, Sounds):
        config = {"config": "small"} if kind is TinyPhotos else {}
        kind(data_dir=folder, file_format="array_record", **config).download_and_prepare()
    return str(folder)


def test_images_are_those_that_were_written(folder):
    source = open_source("tfds:tiny_photos/small", folder)
    expected = {photograph(i).tobytes() for i in range(5)}
    assert len(source) == 5 and {source[i].tobytes() for i in range(5)} == expected
    assert list(source.names) == [f"tiny_photos-small-train-000000{i}" for i in range(5)]
    with pytest.raises(IndexError):
        source[5]


@pytest.mark.parametrize(
    "spec,count",
    [
        ("tiny_photos/small:test", 2),
        ("tiny_photos/small:1.0.0", 5),
        ("tiny_photos/small:1.0.0:test", 2),
        ("tiny_photos/small:train[:40%]", 2),
        ("tiny_photos/small:train+test", 7),
    ],
)
def test_splits_and_versions_are_chosen_by_the_name(folder, spec, count):
    source = open_source(f"tfds:{spec}", folder)
    assert len(source) == len({name for name in source.names}) == count
    assert not set("/:[]%+") & set(source.names[0])


def test_the_environment_names_the_folder_unless_the_config_does(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", folder)
    assert len(open_source("tfds:tiny_photos/small")) == 5
    with pytest.raises(UserError, match=f"is not prepared in {tmp_path}"):
        open_source("tfds:tiny_photos/small", str(tmp_path))


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


def sentence(spec, folder):
    with pytest.raises(UserError) as error:
        open_source(spec, folder)
    assert "\n" not in str(error.value) and str(error.value).startswith(spec)
    return str(error.value)


@pytest.mark.parametrize(
    "spec,said",
    [
        ("coko/2017", "is not prepared in"),
        ("tiny_photos/small:validation", "has no split validation: choose one of train, test"),
        ("sounds", "has no 8-bit images, only text"),
    ],
)
def test_unknown_names_and_sets_without_images_are_said_to_be_so(folder, spec, said):
    assert said in sentence(f"tfds:{spec}", folder)


@pytest.mark.parametrize("name", ["coco/2017", "open_images_v4", "coco/2017:1.1.0"])
def test_a_set_that_is_not_prepared_says_how_and_downloads_nothing(tmp_path, name, monkeypatch):
    prepared = []
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", prepared.append)
    text = sentence(f"tfds:{name}:train", str(tmp_path))
    assert f"is not prepared in {tmp_path} (set TFDS_DATA_DIR to use another folder)" in text
    assert f"tfds.builder('{name}', data_dir='{tmp_path}', file_format='array_record')" in text
    assert os.listdir(tmp_path) == prepared == []


def test_the_command_that_prepares_is_sound(tmp_path, monkeypatch):
    """Up to the download itself, which is replaced."""
    text = sentence("tfds:coco/2017", str(tmp_path))
    code = text.partition('python -c "')[2].removesuffix('"')
    prepared = []
    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", lambda self: prepared.append(self)
    )
    exec(code)
    (builder,) = prepared
    assert builder.info.full_name.startswith("coco/2017/")
    assert builder.info.file_format.value == "array_record"


def test_other_file_formats_are_named(tmp_path):
    TinyPhotos(data_dir=tmp_path, config="small").download_and_prepare()
    text = sentence("tfds:tiny_photos/small", str(tmp_path))
    assert "but not as ArrayRecord files, which random access needs: remove it, then" in text


def test_damaged_records_are_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (shard,) = tmp_path.glob("tiny_photos/small/1.0.0/*train*")
    data = shard.read_bytes()
    shard.write_bytes(data.replace(b"IDAT", b"XXXX", 1))
    source = open_source("tfds:tiny_photos/small", str(tmp_path))
    errors = {}
    for i in range(5):
        try:
            source[i]
        except UserError as error:
            errors[i] = str(error)
    ((i, said),) = errors.items()
    assert said.startswith(f"tfds:tiny_photos/small, record {i}: cannot be read")


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"pip install 'fa-hific-jax\[tfds\]'"):
        open_source("tfds:coco/2017")


@pytest.mark.parametrize("spec", ["tfds:", "tfds::train"])
def test_malformed_names_are_refused(spec):
    with pytest.raises(UserError, match="write tfds:NAME/CONFIG:SPLIT, for example tfds:coco"):
        open_source(spec)
