"""The command line with the model of fake_model.py, in this process or in one of its own."""

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from cpu_devices import ROOT
from fake_model import FakeModel
from PIL import Image

from fa_hific_jax.cli.main import main
from fa_hific_jax.codec import shipped

COMMAND = [sys.executable, str(ROOT / "tests/fake_model.py")]
ENV = os.environ | {"PYTHONPATH": str(ROOT), shipped.MODEL_VARIABLE: "verbatim"}
ENV.pop("PYTHONUNBUFFERED", None)  # Output that cannot be written is noticed when it is flushed.
RNG = np.random.default_rng(0)


@pytest.fixture
def models(monkeypatch, tmp_path):
    """The models that commands load while the test runs in an empty folder."""
    loaded = []

    def load_model(name):
        loaded.append(FakeModel(name))
        return loaded[-1]

    module = types.SimpleNamespace(load_model=load_model)
    monkeypatch.setitem(sys.modules, "fa_hific_jax.codec.model_folder", module)
    monkeypatch.setenv(shipped.MODEL_VARIABLE, "verbatim")
    monkeypatch.chdir(tmp_path)
    return loaded


def image(path: str | Path, height: int = 6, width: int = 9, bands: int = 3) -> np.ndarray:
    """Pixels of noise, after writing them to a file."""
    pixels = RNG.integers(0, 255, (height, width, bands), np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def animation(path: str | Path) -> None:
    """Writes two frames, of which one cannot be kept: the command has a note on them."""
    Image.new("L", (3, 2), 1).save(path, save_all=True, append_images=[Image.new("L", (3, 2), 9)])


def run(*arguments) -> int:
    """Exit code of the command line."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as error:
        assert isinstance(error.code, int)
        return error.code
    return 0


def shell(line: str, **options) -> subprocess.CompletedProcess:
    """A line of the shell in which {} stands for the command line."""
    given = {"env": ENV, "capture_output": True, "timeout": 60} | options
    return subprocess.run(["sh", "-c", line.format(" ".join(COMMAND))], **given)


def started(*arguments, **options) -> subprocess.Popen:
    """The command line as a process that Ctrl-C ends, even below a runner in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen([*COMMAND, *arguments], env=ENV, stderr=subprocess.PIPE, **options)
    finally:
        signal.signal(signal.SIGINT, before)


def stopped(process: subprocess.Popen, number: signal.Signals) -> bytes:
    """Standard error of a process that this signal ends, with the code that shells expect."""
    process.send_signal(number)
    said = process.communicate(timeout=15)[1]
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    return said


def written(folder: str | Path = ".") -> list[str]:
    """All files below, hidden ones too."""
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


def pixels_of(path: str | Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened)


def refused(capsys, *arguments) -> str:
    """What a command says that changes nothing and ends with 2: one sentence or the usage."""

    def found():
        return {p: p.is_file() and p.read_bytes() for p in Path().rglob("*")}

    before = found()
    assert run(*arguments) == 2 and found() == before
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage: fa-hific" in err or (err.startswith("error: ") and err.count("\n") == 1)
    return err
