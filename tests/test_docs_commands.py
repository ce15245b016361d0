"""Blocks of the documentation behind <!-- run --> are carried out as they stand.

Each page has a folder of its own, in which its blocks run in their order, shell blocks by
`bash -euo pipefail`. What they name lies there, small: train.py, eval.py and configs/ of the
repository; photo.jpg, photo.png, and folders photos/ and kodak/ of photographs; runs/demo, fa_lo,
a and b, with random parameters and few points of the codecs; models/c, exported; models/lite with
gains; lpips_alex.npz with random weights. `python` and `fa-hific` are those of the tests' own
environment.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from coding_model import coding_model, coding_params, many_rates_model
from cpu_devices import hasty
from doc_pages import PAGES, ROOT, fences, read
from etils import epath
from PIL import Image
from tiny_settings import tiny_settings

from fa_hific_jax.checkpoints import Checkpoints
from fa_hific_jax.codec.model_folder import save_model
from fa_hific_jax.losses.lpips import expected_shapes

RUNNABLE = [page for page in PAGES if any(fence.run for fence in fences(read(page)))]
SIDE = 192  # of the photographs: enough for all five scales of MS-SSIM


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with all that the module's docstring names."""
    for name in ("train.py", "eval.py", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    data = pytest.importorskip("skimage.data")
    for name in ("chelsea", "coffee"):
        picture = Image.fromarray(getattr(data, name)()[:SIDE, : SIDE + 30])
        for place in ("photos", "kodak"):
            (tmp_path / place).mkdir(exist_ok=True)
            picture.save(tmp_path / place / f"{name}.png")
    picture.save(tmp_path / "photo.png")
    picture.save(tmp_path / "photo.jpg")
    settings = tiny_settings(data__evaluation="photos", evaluation__baseline_points=3)
    for seed, name in enumerate(("demo", "fa_lo", "a", "b")):
        checkpoints = Checkpoints(epath.Path(tmp_path / "runs" / name), kept=1)
        checkpoints.save(1, coding_params(seed), {"sigma": jnp.zeros((1, 2))}, settings)
        checkpoints.close()
    (tmp_path / "models").mkdir()
    save_model(coding_model(), tmp_path / "models" / "c")
    save_model(many_rates_model(), tmp_path / "models" / "lite")
    random = np.random.default_rng(0)
    shapes = expected_shapes("alex").items()
    arrays = {name: random.uniform(0, 0.1, shape).astype(np.float32) for name, shape in shapes}
    np.savez(tmp_path / "lpips_alex.npz", **arrays)
    return tmp_path


def environment(programs: Path) -> dict[str, str]:
    """Variables under which `python` and `fa-hific` are ours, on one CPU device."""
    programs.mkdir()
    for name, arguments in {"python": "", "fa-hific": "-m fa_hific_jax "}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        (programs / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FA_HIFIC_")}
    ours = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return kept | hasty() | ours


@pytest.mark.long
@pytest.mark.parametrize("page", RUNNABLE, ids=str)
def test_blocks_run_as_they_stand(page, folder, tmp_path_factory):
    variables = environment(tmp_path_factory.mktemp("programs") / "bin")
    for fence in fences(read(page)):
        if not fence.run:
            continue
        how = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": ["python", "-c"]}[fence.language]
        run = {"cwd": folder, "env": variables, "capture_output": True, "text": True}
        done = subprocess.run([*how, fence.code], timeout=900, **run)
        assert done.returncode == 0, f"{fence.code}\n{done.stdout}\n{done.stderr}"
