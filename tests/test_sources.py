"""Sources of images: what is found below a name, as what, and what is said where nothing is."""

import importlib.util
import os
import re
from multiprocessing.pool import ThreadPool
from unittest import mock

import numpy as np
import pytest
from etils import epath
from etils.epath import testing
from PIL import Image

from fa_hific_jax.data.dead_leaves import DeadLeaves
from fa_hific_jax.data.sources import Cached, ImageFiles, Photographs, open_source
from fa_hific_jax.errors import UserError

RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (6, 9, 3), np.uint8)


def write(path, pixels=COLORS, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def test_folders_are_searched_below_in_sorted_order_and_through_links(tmp_path):
    folder = tmp_path / "set"
    for name in ("b.png", "sub/a.JPG", "sub/deeper/c.webp", "a.bmp", ".hidden.png", "._b.png"):
        write(folder / name)
    (folder / "notes.txt").write_text("not an image")
    (folder / "folder.png").mkdir()
    os.symlink(write(tmp_path / "real" / "A.png").parent, folder / "z")
    # Names are unique whatever their case.
    assert ImageFiles(str(folder)).names == ["a", "b", "a-2", "c", "A-3"]


def test_globs_single_files_and_home_are_found_and_variables_are_not(tmp_path, monkeypatch):
    for name in ("a1.png", "a2.png", "b.png", "sub/a3.png", "odd[1].png"):
        write(tmp_path / name)
    assert ImageFiles(f"{tmp_path}/a*.png").names == ["a1", "a2"]
    assert ImageFiles(f"{tmp_path}/**/a*.png").names == ["a1", "a2", "a3"]
    assert ImageFiles(f"{tmp_path}/odd[1].png").names == ["odd[1]"]
    np.testing.assert_array_equal(ImageFiles(f"{tmp_path}/b.png")[0], COLORS)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(ImageFiles("~/sub")) == 1
    with pytest.raises(UserError, match=r"\$HOME/sub: no images here"):
        ImageFiles("$HOME/sub")


@pytest.mark.parametrize("pattern", ["", "/nothing-*.png", "/absent", "/notes.txt"])
def test_finding_nothing_names_the_pattern(tmp_path, pattern):
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path) + pattern)}: no images here; "):
        ImageFiles(f"{tmp_path}{pattern}")


def test_a_folder_without_permission_says_so(tmp_path, monkeypatch):
    write(tmp_path / "a.png")
    write(tmp_path / "closed" / "b.png")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "closed" not in path and real(path, mode))
    with pytest.raises(UserError, match=r"closed/: cannot be listed \(Permission denied\)"):
        open_source(f"{tmp_path}/**/*.png")
    denied = PermissionError(13, "Permission denied", str(tmp_path))
    monkeypatch.setattr(os, "scandir", mock.Mock(side_effect=denied))
    for pattern in (str(tmp_path), f"{tmp_path}/*.gif"):
        with pytest.raises(UserError, match=rf"{tmp_path}: cannot be listed \(Permission denied\)"):
            open_source(pattern)


def test_a_file_without_permission_is_named_and_memory_that_ran_out_is_not(tmp_path, monkeypatch):
    source = open_source(str(write(tmp_path / "a.png").parent))
    for error, raised, message in (
        (PermissionError(13, "denied"), UserError, r"a\.png: cannot be read .* \(denied\)"),
        (MemoryError("full"), MemoryError, "full"),
    ):
        monkeypatch.setattr(Image, "open", mock.Mock(side_effect=error))
        with pytest.raises(raised, match=message):
            source[0]


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder that stands for gs://bucket."""

    def here(path):
        return str(path).replace("gs://", f"{tmp_path}/")

    def there(path):
        return str(path).replace(f"{tmp_path}/", "gs://")

    # With TensorFlow installed it would be asked for buckets, whatever the mock.
    monkeypatch.setattr(epath.gpath, "_is_tf_installed", lambda: False)
    with testing.mock_epath(
        open=lambda real, path, mode: real(here(path), mode),
        exists=lambda real, path: real(here(path)),
        isdir=lambda real, path: real(here(path)),
        glob=lambda real, path: [there(name) for name in real(here(path))],
        walk=lambda real, path, **_: [(there(a), b, c) for a, b, c in os.walk(here(path))],
    ):
        yield tmp_path / "bucket"


def test_buckets_are_read_like_folders(bucket):
    for name in ("set/b.png", "set/sub/a.png", "set/.hidden.png", "other/c.png"):
        write(bucket / name)
    (bucket / "set" / "notes.txt").write_text("not an image")
    folder = open_source("gs://bucket/set")
    assert folder.names == ["b", "a"]
    np.testing.assert_array_equal(folder[1], COLORS)
    assert open_source("gs://bucket/*/*.png").names == ["c", "b"]
    assert open_source("gs://bucket/set/sub/a.png").names == ["a"]


def test_what_buckets_cannot_do_is_said(bucket, monkeypatch):
    path = write(bucket / "set" / "a.png")
    source = open_source("gs://bucket/set")
    path.write_bytes(b"no image")
    with pytest.raises(UserError, match="^gs://bucket/set/a.png: cannot be read as an image"):
        source[0]
    path.unlink()
    with pytest.raises(UserError, match="^gs://bucket/set/a.png: cannot be read .*No such file"):
        source[0]
    with pytest.raises(UserError, match=r"\*\* does not work in buckets: give the folder"):
        open_source("gs://bucket/**/*.png")
    for absent in ("gs://bucket/absent", "gs://bucket/*.jpg"):
        with pytest.raises(UserError, match="no images here; expected a folder or glob"):
            open_source(absent)
    missing = ImportError("Please install gcsfs to access Google Storage")
    with testing.mock_epath(isdir=mock.Mock(side_effect=missing)):
        with pytest.raises(UserError, match="cannot be listed .*install gcsfs.* is installed$"):
            open_source("gs://bucket/set")


def test_photographs_are_colorful_and_never_shared():
    pytest.importorskip("skimage")
    train, validation = Photographs("train"), Photographs("validation")
    # The two views of a stereo pair count as one photograph.
    assert not {n.split("_")[0] for n in train.names} & {n.split("_")[0] for n in validation.names}
    for image in (*train, *validation):
        assert image.dtype == np.uint8 and min(image.shape[:2]) >= 300 and image.std() > 20


def test_missing_photographs_name_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'fa-hific-jax\[train\]'"):
        open_source("photographs:train")


def test_dead_leaves_are_opened_by_number():
    assert len(open_source("dead_leaves")) >= 256 and len(open_source("dead_leaves:7")) == 7
    np.testing.assert_array_equal(open_source("dead_leaves:7")[3], DeadLeaves(4)[3])


@pytest.mark.parametrize(
    "spec,message",
    [
        ("", "the name of the images is empty"),  # not the current folder
        ("arrayrecord:", "the name of the images is empty"),
        ("photographs:test", "photographs:test: the split must be one of .*validation"),
        ("dead_leaves:-1", "dead_leaves:-1: .* positive number of images"),
        ("dead_leaves:0", "dead_leaves:0: .* positive number"),
        ("dead_leaves:1.5", "dead_leaves:1.5: .* positive number"),
        ("dead_leaves:²", "dead_leaves:²: .* positive number"),
    ],
)
def test_a_wrong_source_is_named(spec, message):
    with pytest.raises(UserError, match=message):
        open_source(spec)


def test_cached_images_are_made_once_and_cannot_be_altered():
    source = DeadLeaves(10, 8)
    cached = Cached(source)
    with ThreadPool(8) as pool:
        seen = pool.map(lambda _: [cached[i] for i in range(10)], range(8), chunksize=1)
    assert all(own[i] is seen[0][i] is cached[i] for own in seen for i in range(10))
    np.testing.assert_array_equal(cached[3], source[3])
    assert len(cached) == 10 and cached.names == source.names
    with pytest.raises(ValueError, match="read-only"):
        cached[3][0] = 0
