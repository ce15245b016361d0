"""Where compress and decompress write: existing files, streams, names that were meant otherwise."""
# ruff: noqa: F811

import io
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from PIL import Image
from test_cli import (  # noqa: F401  (models: a fixture)
    ROOT,
    image,
    models,
    pixels_of,
    refused,
    run,
    wait_until_caught,
    written,
)
from tiny_settings import tiny_settings

from fa_hific_jax import streams
from fa_hific_jax.codec import shipped
from fa_hific_jax.codec.pixels import is_decoded, write_image
from fa_hific_jax.convert import published
from fa_hific_jax.data import pack
from fa_hific_jax.evaluation import results
from fa_hific_jax.training import record
from fa_hific_jax.writing import write


def process(*arguments, **options) -> subprocess.CompletedProcess:
    """The command line with the fake model, in a process of its own."""
    env = os.environ | {"PYTHONPATH": str(ROOT), shipped.MODEL_VARIABLE: "verbatim"}
    command = [sys.executable, str(ROOT / "tests/fake_model.py"), *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, timeout=60, **options)


def test_standard_input_and_output_carry_an_image_there_and_back(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    packed = process("compress", "-", input=file.getvalue(), cwd=tmp_path)
    assert (packed.returncode, packed.stderr) == (0, b"") and packed.stdout[:4] == b"FAHJ"
    back = process("decompress", "-", "-o", "-", input=packed.stdout, cwd=tmp_path)
    assert back.returncode == 0 and written(str(tmp_path)) == []
    with Image.open(io.BytesIO(back.stdout)) as opened:
        assert opened.format == "PNG"
        np.testing.assert_array_equal(np.asarray(opened), pixels)


def test_a_note_does_not_mix_with_the_bytes_on_standard_output(tmp_path):
    frames = [Image.new("L", (3, 2), level) for level in (1, 9)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    done = process("compress", "a.gif", "-o", "-", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout[:4] == b"FAHJ" and b"note: a.gif" in done.stderr


def test_what_is_wrong_with_standard_input_is_said_with_its_name(tmp_path):
    for data, reason in ((b"", b"cannot be read as an image"), (b"no image", b"as an image")):
        done = process("compress", "-", input=data, cwd=tmp_path)
        assert done.returncode == 1 and done.stdout == b"", done
        assert done.stderr.startswith(b"error: /dev/stdin: ") and reason in done.stderr


@pytest.mark.parametrize("arguments", [["a.png", "-o", "pipe"], ["pipe", "-o", "b.fahj"], ["-"]])
def test_the_wait_for_the_other_end_of_a_pipe_can_be_ended(tmp_path, arguments):
    image(str(tmp_path / "a.png"))
    os.mkfifo(tmp_path / "pipe")
    env = os.environ | {"PYTHONPATH": str(ROOT), shipped.MODEL_VARIABLE: "verbatim"}
    command = [sys.executable, str(ROOT / "tests/fake_model.py"), "compress", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, cwd=tmp_path, stdin=pipe, stderr=pipe) as process:
        wait_until_caught(signal.SIGTERM, process.pid)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.terminate()
        assert process.wait(timeout=15) == 143 and process.stderr and process.stderr.read() == b""
    assert written(str(tmp_path)) == ["a.png"]


def test_standard_output_may_be_closed(tmp_path):
    image(str(tmp_path / "a.png"))
    command = f"{sys.executable} {ROOT}/tests/fake_model.py compress a.png -o - >&-"
    env = os.environ | {"PYTHONPATH": str(ROOT), shipped.MODEL_VARIABLE: "verbatim"}
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=env, capture_output=True)
    assert done.returncode == 1 and b"standard output is closed" in done.stderr
    assert b"Traceback" not in done.stderr and written(str(tmp_path)) == ["a.png"]


def test_a_terminal_gets_no_binary_data(models, capsys, monkeypatch):
    image("a.png")
    monkeypatch.setattr(streams, "is_terminal", lambda path: path == streams.STDOUT)
    assert "the output is a terminal: redirect it" in refused(
        capsys, "compress", "a.png", "-o", "-"
    )


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_devices_and_pipes_are_written_to(models, force):
    pixels = image("a.png")
    assert run("compress", "a.png", "-o", "/dev/null", *force) == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    run("compress", "a.png")
    os.mkfifo("pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append(Path("pipe").read_bytes()))
    reader.start()
    assert run("decompress", "a.fahj", "-o", "pipe", *force) == 0
    reader.join(timeout=10)
    np.testing.assert_array_equal(pixels_of(io.BytesIO(got[0])), pixels)
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


def test_pipes_are_read_once(models):
    pixels = image("a.png")
    os.mkfifo("pipe")
    for command, source, out in (
        ("compress", "a.png", "b.fahj"),
        ("decompress", "b.fahj", "c.png"),
    ):
        data = Path(source).read_bytes()
        writer = threading.Thread(target=lambda data=data: Path("pipe").write_bytes(data))
        writer.start()
        assert run(command, "pipe", "-o", out) == 0
        writer.join(timeout=10)
    np.testing.assert_array_equal(pixels_of("c.png"), pixels)


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_what_stands_at_the_output_keeps_its_link_and_its_permissions(models, command):
    image("a.png")
    run("compress", "a.png")
    source, suffix = {"compress": ("a.png", "fahj"), "decompress": ("a.fahj", "png")}[command]
    for name in (f"real.{suffix}", f"private.{suffix}"):
        Path(name).write_bytes(b"before")
    Path(f"link.{suffix}").symlink_to(f"real.{suffix}")
    os.chmod(f"private.{suffix}", 0o600)
    for name in ("link", "private"):
        assert run(command, source, "-o", f"{name}.{suffix}", "--force") == 0
    assert Path(f"link.{suffix}").is_symlink() and Path(f"real.{suffix}").stat().st_size > 6
    assert stat.S_IMODE(os.stat(f"private.{suffix}").st_mode) == 0o600
    assert Path(f"private.{suffix}").read_bytes() == Path(f"real.{suffix}").read_bytes()


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
    capsys.readouterr()
    assert run("compress", "in", "-o", "out", "--skip-existing") == 0
    assert "1 of 3 files exist already and stay" in capsys.readouterr().err
    assert len(models[1].calls) == 2 and written("out") == ["a.fahj", "b.fahj", "c.fahj"]
    assert Path("out/b.fahj").stat() == before
    assert run("compress", "in", "-o", "out", "--skip-existing") == 0
    assert len(models) == 2  # nothing left: no model was loaded
    assert run("decompress", "out", "-o", "back", "--skip-existing") == 0
    assert written("back") == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_existing_files_that_are_cut_off_are_named(models, capsys, share):
    image("in/a.png")
    image("in/b.png")
    for command, source, out in (("compress", "in", "out"), ("decompress", "out", "back")):
        assert run(command, source, "-o", out) == 0
        cut = sorted(Path(out).iterdir())[0]
        whole = cut.read_bytes()
        cut.write_bytes(whole[: int(share * len(whole))])
        capsys.readouterr()
        assert run(command, source, "-o", out, "--skip-existing") == 1
        assert f"error: {cut}: exists already and is incomplete" in capsys.readouterr().err
        assert cut.stat().st_size < len(whole)
        cut.unlink()
        assert run(command, source, "-o", out, "--skip-existing") == 0
        assert cut.read_bytes() == whole


def test_an_original_is_not_overwritten_by_a_name_that_nobody_gave(models, capsys):
    pixels = image("a.png")
    run("compress", "a.png")
    for out in ([], ["-o", "."]):
        sentence = refused(capsys, "decompress", "a.fahj", "--force", *out)
        assert sentence.startswith("a.png: may be the original")
    assert not is_decoded(Path("a.png"))
    Path("a.png").rename("original.png")
    assert run("decompress", "a.fahj") == 0 and is_decoded(Path("a.png"))
    before = Path("a.png").stat().st_ino
    assert run("decompress", "a.fahj", "--force") == 0  # its own earlier output
    assert Path("a.png").stat().st_ino != before
    assert run("decompress", "a.fahj", "-o", "original.png", "--force") == 0  # asked for
    np.testing.assert_array_equal(pixels_of("original.png"), pixels)


NAMES = [
    (["compress", ""], "argument INPUT: an empty name: give . for the current folder"),
    (["compress", "a.png", "-o", ""], "argument -o/--output: '' is not the name"),
    (["info", ""], "an empty name"),
    (["pack", "in", "-o", "-", "--shards", "1"], "argument -o/--output: '-' is not the name"),
    (["pack", "", "-o", "packed", "--shards", "1"], "an empty name"),
    (["export", "run", "-o", ""], "'' is not the name"),
    (["get-lpips", "-o", "-"], "'-' is not the name"),
    (["get-lpips", "--from", ""], "'' is not the name"),
    (["get-inception", "--from", ""], "'' is not the name"),
    (["import-torch", "a.pt", "-o", ""], "'' is not the name"),
    (["plot", "run", "-o", ""], "'' is not the name"),
    (["compress", "a.png", "-o", "~nobody-of-this-name/x"], "no such home folder: give ./~nobody"),
    (["compress", "a.png", "--force", "--skip-existing"], "not allowed with argument"),
]


@pytest.mark.parametrize("arguments, sentence", NAMES, ids=range(len(NAMES)))
def test_names_without_a_meaning_are_refused(models, capsys, arguments, sentence):
    image("a.png")
    image("in/a.png")
    assert run(*arguments) == 2
    assert sentence in capsys.readouterr().err
    assert written() == ["a.png", "in/a.png"]


MEANT_OTHERWISE = [
    (["compress", "a.png", "-o", "small.jpg"], "small.jpg: is the name of an image, but"),
    (["compress", "a.png", "-o", "small.PNG"], "small.PNG: is the name of an image, but"),
    (["compress", "a.png", "-o", "small.ico"], "small.ico: is the name of an image, but"),
    (["compress", "in", "-o", "all.fahj"], "all.fahj: is the name of a file, but several files"),
    (["decompress", "b.fahj", "-o", "c.fahj"], r"c.fahj: images are written as .png"),
    (["decompress", "b.fahj", "-o", "c"], r"c: images are written as .png"),
    (["decompress", "b.fahj", "c.fahj", "-o", "d.png"], "d.png: is the name of a file, but sev"),
    (["compress", "a.png", "in/b.png", "-o", "-"], "/dev/stdout: takes a single file"),
]


@pytest.mark.parametrize("arguments, sentence", MEANT_OTHERWISE, ids=range(len(MEANT_OTHERWISE)))
def test_outputs_that_were_meant_otherwise_are_refused(models, capsys, arguments, sentence):
    for name in ("a.png", "in/b.png"):
        image(name)
    for name in ("b.fahj", "c.fahj" if "c.fahj" not in arguments[-1] else "b.fahj"):
        Path(name).write_bytes(b"any")
    assert sentence in refused(capsys, *arguments)


def test_a_home_folder_is_meant_in_outputs_too(models, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    image("a.png")
    assert run("compress", "a.png", "-o", "~/new/") == 0
    assert run("decompress", "~/new/a.fahj", "-o", "~/b.png") == 0
    assert run("compress", "a.png", "-o", "./~/") == 0
    assert written() == ["a.png", "home/b.png", "home/new/a.fahj", "~/a.fahj"]


def note_a_start(path: Path) -> None:
    record.note_start(epath.Path(path.parent), tiny_settings(), 0)


def plot(path: Path) -> None:
    (path.parent / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    assert run("plot", path.parent) == 0


WRITERS = {
    "a.png": lambda path: write_image(path, np.zeros((2, 3, 3), np.uint8)),
    "results.json": lambda path: results.write_json(path, {}),
    "weights.npz": lambda path: published._save(path, {"w": np.zeros(2)}),
    "manifest.json": lambda path: pack._write_manifest({}, path.parent),
    "run.json": note_a_start,
    "curves.png": plot,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_follows_a_link_and_keeps_permissions(tmp_path, name):
    private, folder = tmp_path / "private", tmp_path / "folder"
    private.touch(0o600)
    folder.mkdir()
    (folder / name).symlink_to(private)
    WRITERS[name](folder / name)
    assert (folder / name).is_symlink() and private.stat().st_size > 0
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert set(os.listdir(tmp_path)) == {"private", "folder"}
    assert set(os.listdir(folder)) <= {name, "metrics.jsonl"}
