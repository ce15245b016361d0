"""Where compress and decompress write: existing files, streams, names that were meant otherwise."""
# ruff: noqa: F811

import io
import os
import signal
import stat
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from command_line import (  # noqa: F401  (models: a fixture)
    image,
    models,
    pixels_of,
    refused,
    run,
    shell,
    started,
    stopped,
    written,
)
from etils import epath
from image_files import saved
from PIL import Image
from tiny_settings import tiny_settings

from fa_hific_jax import streams
from fa_hific_jax.codec import shipped
from fa_hific_jax.codec.pixels import is_decoded, write_image
from fa_hific_jax.convert import published_weights
from fa_hific_jax.data import pack
from fa_hific_jax.evaluation import results
from fa_hific_jax.training import record
from fa_hific_jax.writing import write

# Streams.


def test_standard_input_and_output_carry_an_image_there_and_back(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8)
    done = shell("{0} compress - | {0} decompress - -o -", input=saved(pixels), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"") and written(tmp_path) == []
    with Image.open(io.BytesIO(done.stdout)) as opened:
        assert opened.format == "PNG"
        np.testing.assert_array_equal(np.asarray(opened), pixels)


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        (["a.png", "-o", "pipe"], signal.SIGTERM),
        (["-"], signal.SIGTERM),
        (["pipe", "a.png", "-o", "out/"], signal.SIGINT),
    ],
)
def test_one_signal_ends_the_wait_for_the_other_end_of_a_pipe(tmp_path, arguments, number):
    image(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe")
    with started("compress", *arguments, cwd=tmp_path, stdin=subprocess.PIPE) as waiting:
        handlers = Path(f"/proc/{waiting.pid}/status")
        while int(handlers.read_text().partition("SigCgt:")[2].split()[0], 16) & 1 << 14 == 0:
            time.sleep(0.05)  # until it has a handler for SIGTERM, 15
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=0.5)
        assert stopped(waiting, number) == b""
    assert written(tmp_path) == ["a.png"]


def test_a_terminal_gets_no_binary_data(models, capsys, monkeypatch):
    image("a.png")
    monkeypatch.setattr(streams, "is_terminal", lambda path: path == streams.STDOUT)
    said = refused(capsys, "compress", "a.png", "-o", "-")
    assert "the output is a terminal: redirect it" in said


def test_pipes_are_read_and_written_once_and_devices_do_not_count_as_existing(models):
    pixels = image("a.png")
    run("compress", "a.png")
    assert run("compress", "a.png", "-o", "/dev/null") == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    for name in ("in", "out"):
        os.mkfifo(name)
    for command, source in (("compress", "a.png"), ("decompress", "a.fahj")):
        data = Path(source).read_bytes()
        with ThreadPoolExecutor(2) as ends:
            ends.submit(Path("in").write_bytes, data)
            got = ends.submit(Path("out").read_bytes)
            assert run(command, "in", "-o", "out") == 0
    np.testing.assert_array_equal(pixels_of(io.BytesIO(got.result())), pixels)
    assert stat.S_ISFIFO(os.stat("out").st_mode)


def test_the_second_of_two_runs_without_force_is_refused(models, monkeypatch, capsys):
    image("a.png")
    real = shipped.model_to_use

    def meanwhile(given):
        write("a.fahj", b"of another process")
        return real(given)

    monkeypatch.setattr(shipped, "model_to_use", meanwhile)
    assert run("compress", "a.png") == 1
    assert capsys.readouterr().err.startswith("error: a.png: a.fahj: exists already: give --force")
    assert Path("a.fahj").read_bytes() == b"of another process"
    Path("a.fahj").unlink()
    assert run("compress", "a.png", "--skip-existing") == 0
    assert Path("a.fahj").read_bytes() == b"of another process"
    assert written() == ["a.fahj", "a.png"]


def test_an_interrupted_batch_goes_on(models, capsys):
    for name in "abc":
        image(f"in/{name}.png")
    run("compress", "in/b.png", "-o", "out/")
    before = Path("out/b.fahj").stat()
    assert run("compress", "in", "-o", "out", "--skip-existing") == 0
    assert "1 of 3 files exist already and stay" in capsys.readouterr().err
    assert len(models[1].calls) == 2 and written("out") == ["a.fahj", "b.fahj", "c.fahj"]
    assert Path("out/b.fahj").stat() == before
    assert run("compress", "in", "-o", "out", "--skip-existing") == 0
    assert len(models) == 2  # nothing left: no model was loaded


@pytest.mark.parametrize("share", [0, 0.99])
@pytest.mark.parametrize("command, whole", [("compress", "a.png"), ("decompress", "a.fahj")])
def test_existing_files_that_are_cut_off_are_named(models, capsys, share, command, whole):
    image("a.png")
    run("compress", "a.png")
    run(command, whole, "-o", "out/")
    (cut,) = Path("out").iterdir()
    data = cut.read_bytes()
    cut.write_bytes(data[: int(share * len(data))])
    capsys.readouterr()
    assert run(command, whole, "-o", "out/", "--skip-existing") == 1
    assert f"error: {cut}: exists already and is incomplete" in capsys.readouterr().err
    assert cut.stat().st_size < len(data)


def test_an_original_is_not_overwritten_by_a_name_that_nobody_gave(models, capsys):
    pixels = image("a.png")
    run("compress", "a.png")
    for out in ([], ["-o", "."]):
        said = refused(capsys, "decompress", "a.fahj", "--force", *out)
        assert "a.png: may be the original" in said
    assert not is_decoded(Path("a.png"))
    Path("a.png").rename("original.png")
    assert run("decompress", "a.fahj") == 0 and is_decoded(Path("a.png"))
    before = Path("a.png").stat().st_ino
    assert run("decompress", "a.fahj", "--force") == 0  # its own earlier output
    assert Path("a.png").stat().st_ino != before
    assert run("decompress", "a.fahj", "-o", "original.png", "--force") == 0  # asked for
    np.testing.assert_array_equal(pixels_of("original.png"), pixels)


def test_a_home_folder_is_meant_in_outputs_too(models, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    image("a.png")
    assert run("compress", "a.png", "-o", "~/new/") == 0
    assert run("decompress", "~/new/a.fahj", "-o", "~/b.png") == 0
    assert run("compress", "a.png", "-o", "./~/") == 0
    assert written() == ["a.png", "home/b.png", "home/new/a.fahj", "~/a.fahj"]


def compress(path: Path) -> None:
    image(path.parent / "a.png")
    assert run("compress", path.parent / "a.png", "--force") == 0


def plot(path: Path) -> None:
    (path.parent / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    assert run("plot", path.parent) == 0


WRITERS = {
    "a.fahj": compress,
    "b.png": lambda path: write_image(path, np.zeros((2, 3, 3), np.uint8)),
    "results.json": lambda path: results.write_json(path, {}),
    "weights.npz": lambda path: published_weights._save(path, {"w": np.zeros(2)}),
    "manifest.json": lambda path: pack._write_manifest({}, path.parent),
    "run.json": lambda path: record.note_start(epath.Path(path.parent), tiny_settings(), 0),
    "curves.png": plot,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_follows_a_link_and_keeps_permissions(models, tmp_path, name):
    private, folder = tmp_path / "private", tmp_path / "folder"
    private.touch(0o600)
    folder.mkdir()
    (folder / name).symlink_to(private)
    WRITERS[name](folder / name)
    assert (folder / name).is_symlink() and private.stat().st_size > 0
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert set(os.listdir(tmp_path)) == {"private", "folder"}
    assert set(os.listdir(folder)) <= {name, "metrics.jsonl", "a.png"}
