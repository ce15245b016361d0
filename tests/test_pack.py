"""Packed shards hold what the files held, stopped runs go on, and damage is named."""

import io
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from fa_hific_jax.cli import main
from fa_hific_jax.data import pack
from fa_hific_jax.data.images import read_image
from fa_hific_jax.data.records import ArrayRecords
from fa_hific_jax.data.sources import open_source
from fa_hific_jax.errors import UserError

module = pytest.importorskip("array_record.python.array_record_module")
RNG = np.random.default_rng(0)


def write(path, height=20, width=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return path


def record(path, **options):
    """What is packed of a file."""
    return pack.Plan((str(path),), (1,), 1, **options).prepare(str(path))


def run(*arguments):
    main.main(["pack", *map(str, arguments)])


def refused(capsys, *arguments, code=2) -> str:
    """What `pack` says on standard error before it ends with this code."""
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    error = capsys.readouterr().err
    assert end.value.code == code and "Traceback" not in error
    return error


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def photos(tmp_path):
    """A folder of eight images, all PNG but two."""
    folder = tmp_path / "photos"
    for i in range(6):
        write(folder / f"{i}.png", 16 + i)
    write(folder / "sub" / "6.jpg")
    write(folder / "sub" / "7.webp")
    return folder


def test_packed_images_are_those_of_the_files_also_by_globs_and_shards(tmp_path, photos, capsys):
    out = tmp_path / "out"
    run(photos, "-o", out, "--shards", "3", "--jobs", "2")
    assert "8 images" in capsys.readouterr().out
    source, files = open_source(f"arrayrecord:{out}"), open_source(str(photos))
    packed = sorted(source[i].tobytes() for i in range(len(source)))
    assert packed == sorted(files[i].tobytes() for i in range(8))
    assert len(set(source.names)) == 8 and source.names[-1] == "record-0000007"

    shards = [f"images-{i:05d}-of-00003.array_record" for i in range(3)]
    assert sorted(contents(out)) == [*shards, "manifest.json"]
    assert len(open_source(f"arrayrecord:{out}/images-*")) == 8
    assert sum(len(open_source(f"arrayrecord:{out}/{shard}")) for shard in shards) == 8


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "ppm"])
def test_photographs_go_in_unchanged_and_other_kinds_as_png_without_loss(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}")
    packed = record(path, max_side=24)
    if suffix in ("jpg", "png", "webp"):
        assert packed == path.read_bytes()
    else:
        image = Image.open(io.BytesIO(packed))
        assert image.format == "PNG"
        np.testing.assert_array_equal(image, read_image(path).rgb)


@pytest.mark.parametrize("suffix,kind", [("jpg", "JPEG"), ("png", "PNG"), ("bmp", "PNG")])
def test_large_images_are_shrunk_to_their_longer_side(tmp_path, suffix, kind):
    path = write(tmp_path / f"a.{suffix}", 60, 40)
    image = Image.open(io.BytesIO(record(path, max_side=30)))
    assert (image.format, image.size) == (kind, (20, 30))
    if kind == "PNG":
        whole = Image.fromarray(read_image(path).rgb)
        np.testing.assert_array_equal(image, whole.resize((20, 30), Image.Resampling.LANCZOS))


def test_small_images_are_left_out_by_their_size_once_shrunk(tmp_path):
    path = write(tmp_path / "a.png", 20, 60)
    assert record(path, min_side=20) and record(path, min_side=10, max_side=30)
    assert not record(path, min_side=21) and not record(path, min_side=11, max_side=30)


def test_damaged_files_are_left_out_counted_and_named(tmp_path, photos, capsys):
    (photos / "3.png").write_bytes((photos / "3.png").read_bytes()[:100])
    (photos / "4.png").write_bytes(b"no image at all")
    run(photos, "-o", tmp_path / "out", "--shards", "2", "--min-side", "18")
    said = capsys.readouterr()
    # 0.png and 1.png have sides of 16 and 17.
    assert "4 images" in said.out and "left out: 2 damaged, 2 too small" in said.out
    assert "3.png: cannot be read as an image" in said.err
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert pack.total(manifest, "images") == 4 == len(ArrayRecords(str(tmp_path / "out")))
    assert sorted(pack.damaged(manifest))[1].startswith(f"{photos}/4.png: cannot be read")


def test_a_folder_that_cannot_be_searched_is_named_and_the_rest_is_packed(
    tmp_path, photos, capsys, monkeypatch
):
    (photos / "locked").mkdir()
    scandir = os.scandir

    def scan(path="."):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    said = refused(capsys, photos, "-o", tmp_path / "out", "--shards", "1", code=1)
    assert said.endswith(f"error: {photos}/locked: Permission denied\n")
    assert len(ArrayRecords(str(tmp_path / "out"))) == 8


def test_a_stopped_run_goes_on_and_ends_the_same(tmp_path, photos, monkeypatch, capsys):
    unbroken, stopped = tmp_path / "unbroken", tmp_path / "stopped"
    run(photos, "-o", unbroken, "--shards", "4")
    prepare, seen = pack.Plan.prepare, []

    def until(plan, path):
        seen.append(path)
        if len(seen) == stop:
            raise KeyboardInterrupt
        return prepare(plan, path)

    monkeypatch.setattr(pack.Plan, "prepare", until)
    stop = 5
    refused(capsys, photos, "-o", stopped, "--shards", "4", "--jobs", "1", code=130)
    assert sorted(contents(stopped)) == [*sorted(contents(unbroken))[:2], "manifest.json"]
    with pytest.raises(UserError, match="stopped: 2 of 4 shards are missing: run the same `fa-h"):
        ArrayRecords(str(stopped))
    seen.clear()
    stop = 0  # never
    run(photos, "-o", stopped, "--shards", "4")
    # Two shards of two images, which threads of the stopped run may still be reading ahead.
    assert len(set(seen)) == 4
    assert contents(stopped) == contents(unbroken)


def test_a_folder_of_another_selection_is_left_alone(tmp_path, photos, capsys):
    out = tmp_path / "out"
    run(photos, "-o", out, "--shards", "2")
    before = contents(out)
    write(photos / "8.png")
    said = refused(capsys, photos, "-o", out, "--shards", "3")
    assert "out: has shards of another selection (shards, sources differ)" in said
    assert contents(out) == before


@pytest.mark.parametrize(
    "options,out,sentence",
    [
        ("--shards 9", "out", "--shards is 9: it must be from 1 to the number of images, 8"),
        ("--shards 0", "out", "--shards is 0"),
        ("--shards 1 --min-side -1", "out", "must not be negative"),
        ("--shards 1 --min-side 9 --max-side 8", "out", "no image is left with --max-side below"),
        ("--shards 1 --min-side 999", "out", "out: holds no image, because all were damaged"),
        ("--shards 1", "photos/0.png/out", "cannot be written (Not a directory)"),
        ("--shards 1", "\udcff", "/\\xff: cannot be written ('utf-8' codec"),
        ("pipe.png --shards 1", "out", "pipe.png: is a pipe, but packing"),
    ],
)
def test_what_cannot_be_packed_is_named(
    tmp_path, photos, options, out, sentence, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.png")
    assert sentence in refused(capsys, photos, *options.split(), "-o", tmp_path / out)


def test_names_of_images_need_not_be_utf_8(tmp_path, photos, capsys):
    os.rename(photos / "0.png", os.fsencode(photos) + b"/\xff.png")
    (photos / os.fsdecode(b"\xfe.png")).write_bytes(b"no image")
    for _ in range(2):
        run(photos, "-o", tmp_path / "out", "--shards", "1")
    said = capsys.readouterr()
    assert f"skipped {photos}/\\xfe.png: cannot be read as an image" in said.err
    assert len(open_source(f"arrayrecord:{tmp_path / 'out'}")) == 8


def test_a_full_disk_is_named(tmp_path, photos, monkeypatch):
    class Full:
        def __init__(self, path, options):
            pass

        def write(self, record):
            raise RuntimeError("write() failed: No space left on device")

    monkeypatch.setattr(module, "ArrayRecordWriter", Full)
    plan = pack.Plan((str(photos / "0.png"),), (1,), 1)
    with pytest.raises(UserError, match="out: cannot be written .*No space left.*make room"):
        pack.pack(plan, tmp_path / "out", 1, lambda size: None)
    assert contents(tmp_path / "out") == {}


def test_damaged_records_and_shards_are_named(tmp_path, photos):
    out = tmp_path / "out"
    run(photos, "-o", out, "--shards", "1")
    shard = out / "images-00000-of-00001.array_record"
    data = shard.read_bytes()
    middle = data.index((photos / "2.png").read_bytes()) + 200
    shard.write_bytes(data[:middle] + b"damage" + data[middle + 6 :])
    source = ArrayRecords(str(out))
    with pytest.raises(UserError, match=r"out, record 2: cannot be read \(.+\)"):
        source[2]
    np.testing.assert_array_equal(source[3], read_image(photos / "3.png").rgb)
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"out: has a shard that is not whole \(.+\)"):
        ArrayRecords(str(out))


def test_shards_without_images_and_records_that_are_none_are_named(tmp_path):
    module.ArrayRecordWriter(str(tmp_path / "a.array_record"), "group_size:1").close()
    with pytest.raises(UserError, match="hold no images"):
        open_source(f"arrayrecord:{tmp_path}")
    with pytest.raises(UserError, match=r"absent: no ArrayRecord shards here; expected a folder"):
        open_source(f"arrayrecord:{tmp_path}/absent")
    writer = module.ArrayRecordWriter(str(tmp_path / "a.array_record"), "group_size:1")
    writer.write(b"no image")
    writer.close()
    with pytest.raises(UserError, match=r"record 0: cannot be read as an image"):
        ArrayRecords(str(tmp_path))[0]


def test_platforms_without_array_record_get_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_module", None)
    with pytest.raises(UserError, match="ArrayRecord cannot be used here .* not on Windows"):
        open_source(f"arrayrecord:{tmp_path}")
