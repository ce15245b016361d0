"""Evaluation as processes: killed and started again, shared by two, compared."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import training_run
from cpu_devices import hasty
from PIL import Image
from test_evaluate import model_of, same_but_for_time

from fa_hific_jax.codec.model_folder import save_model
from fa_hific_jax.evaluation.results import read_results

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, seed in (("one", 3), ("other", 5)):
        save_model(model_of(seed), folder / name)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 256, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return folder


def start(*arguments, **variables) -> subprocess.Popen:
    """eval.py as a process with one CPU device."""
    command = [sys.executable, "eval.py", *map(str, arguments)]
    env, pipe = os.environ | hasty() | variables, subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)


def start_pair(*arguments) -> list[subprocess.Popen]:
    """Two of them that share the work."""
    address = f"127.0.0.1:{training_run.free_port()}"
    known = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    return [start(*arguments, **known, JAX_PROCESS_ID=str(index)) for index in range(2)]


def done(process: subprocess.Popen) -> str:
    """What a process printed that must succeed."""
    code, out, err = training_run.finish(process)
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def arguments(models, images):
    return ["--models", models / "one", "--images", images, "--baselines", "jpeg,webp"]


@pytest.fixture(scope="module")
def whole(arguments, tmp_path_factory):
    """The folder of an evaluation that nothing has disturbed."""
    out = tmp_path_factory.mktemp("whole")
    done(start(*arguments, "--out", out))
    return out


def rows_of(folder) -> list[dict]:
    return same_but_for_time(read_results(folder / "results.json"))


def wait_for_rows(process, rows):
    """Waits until five rows are written."""
    deadline = time.monotonic() + 200
    while not rows.exists() or rows.read_bytes().count(b"\n") < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_evaluation_goes_on_and_computes_nothing_twice(arguments, whole, tmp_path):
    process = start(*arguments, "--out", tmp_path, "--jobs", 2)
    rows = tmp_path / "rows.jsonl"
    wait_for_rows(process, rows)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = rows.read_bytes().splitlines(keepends=True)
    assert not (tmp_path / "results.json").exists()
    done(start(*arguments, "--out", tmp_path, "--jobs", 2))
    after = rows.read_bytes().splitlines(keepends=True)
    finished = [line for line in before if line.endswith(b"\n")]
    assert len(finished) >= 5 and after[: len(finished)] == finished
    assert len({json.loads(line)["key"] for line in after}) == len(after)
    assert rows_of(tmp_path) == rows_of(whole)


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_one_signal_ends_an_evaluation(arguments, tmp_path, how, code):
    process = start(*arguments, "--out", tmp_path, "--jobs", 2)
    wait_for_rows(process, tmp_path / "rows.jsonl")
    process.send_signal(how)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code and err == ""
    assert not (tmp_path / "results.json").exists() and not list(tmp_path.rglob("*.tmp"))


def test_two_processes_share_the_images_and_the_first_merges(arguments, whole, tmp_path):
    first, second = map(done, start_pair(*arguments, "--out", tmp_path))
    assert rows_of(tmp_path) == rows_of(whole)
    assert read_results(tmp_path / "results.json")["meta"]["processes"] == 2
    for name, images in (("rows.jsonl", {"0", "2"}), ("rows.1.jsonl", {"1", "3"})):
        lines = (tmp_path / name).read_text().splitlines()
        assert {json.loads(line)["image"] for line in lines} == images
    assert "image 2/2" in first and "report.html" in first
    assert [line for line in second.splitlines() if not line.startswith("[Gloo]")] == []


def test_error_of_one_process_ends_the_other_with_its_sentence(arguments, tmp_path):
    (tmp_path / "originals" / "1.png").mkdir(parents=True)  # the second process cannot write it
    pair = map(training_run.finish, start_pair(*arguments, "--out", tmp_path))
    (code, _, said), (code_1, _, said_1) = pair
    assert (code, code_1) == (2, 2)
    sentence = f"{tmp_path}/originals/1.png cannot be written (Is a directory): fix that\n"
    assert said_1.endswith(f"error: {sentence}")
    assert said.endswith(f"error: process 1 of the evaluation ended: {sentence}")


def test_two_models_are_compared_at_equal_rate(whole, models, images, tmp_path):
    options = ["--images", images, "--baselines", "none", "--out", tmp_path]
    assert "PSNR" in done(start("--compare", whole, models / "other", *options))
    compared = json.loads((tmp_path / "comparison.json").read_text())
    assert compared["images"] == ["0", "1", "2", "3"]
    assert (models / "other" / "evaluation" / "results.json").exists()
