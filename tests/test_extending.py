"""The example loss of docs/extending.md, added to a copy of the package as the page says."""

import os
import shutil
import textwrap
from pathlib import Path

import pytest
from cpu_devices import ROOT, python
from doc_pages import fences, read

# Where the lines of the page's second and third block belong.
PLACES = (
    ("fa_hific_jax/settings/loss.py", "class LossConfig"),
    ("fa_hific_jax/training/terms.py", "TERMS = ("),
)
IMPORT = "from fa_hific_jax.losses.charbonnier import charbonnier\n"
CHECK = """
import functools
import jax, jax.numpy as jnp, numpy as np
from tiny_settings import tiny_settings
from fa_hific_jax.training.state import create
from fa_hific_jax.training.step import forward, make_batch, train_step

assert tiny_settings().loss.charbonnier == 0.0
off = {f"loss__{name}": 0.0 for name in ("mse", "gan", "ffl", "dsl", "lambda_below")}
settings = tiny_settings(loss__charbonnier=0.5, loss__target_bpp=1e9, model__fcm_width=0, **off)
state = jax.jit(functools.partial(create, settings))(jax.random.key(0))
images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
key = jax.random.key(3)
_, metrics = jax.jit(functools.partial(train_step, settings=settings))(state, images, key, None)

batch = make_batch(jnp.asarray(images), key, state.step, settings)
run = jax.jit(functools.partial(forward, settings=settings))
error = batch.x - run(state.params["autoencoder"], batch).x_hat
root = np.sqrt(np.square(error) + 1e-6)
np.testing.assert_allclose(metrics["charbonnier"], np.mean(root), rtol=1e-5)
np.testing.assert_allclose(metrics["loss"], 0.5 * np.mean(root), rtol=1e-5)
slope = np.linalg.norm((0.5 * error / root / error.size).ravel())
np.testing.assert_allclose(metrics["grad_norm_term/charbonnier"], slope, rtol=1e-5)
assert float(metrics["grad_norm/generator"]) > 1e-3
off = tiny_settings(model__fcm_width=0, loss__dsl=0.0, loss__gan=0.0)
state = jax.eval_shape(functools.partial(create, off), jax.random.key(0))
_, metrics = jax.eval_shape(functools.partial(train_step, settings=off), state, images, key, None)
assert not [name for name in metrics if "charbonnier" in name]
"""


@pytest.mark.long
def test_a_loss_takes_its_file_its_config_field_and_one_line(tmp_path):
    page = read(Path("docs/extending.md"))
    loss, *lines = [fence.code for fence in fences(page) if fence.language == "python"][:3]
    for name in ("fa_hific_jax", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("shipped"))
    (tmp_path / "fa_hific_jax/losses/charbonnier.py").write_text(loss)
    lines[1] = next(line.strip() for line in lines[1].splitlines() if "Term(" in line) + "\n"
    for (name, place), added in zip(PLACES, lines, strict=True):
        source = (tmp_path / name).read_text()
        before, found, after = source.partition(place)
        assert found, f"{name} has no {place!r}"
        if "class" in place:  # its fields come after the docstring
            head, quotes, after = after.partition('"""\n\n')
            found += head + quotes
        else:
            found, after = f"{found}\n", after.removeprefix("\n")
        (tmp_path / name).write_text(before + found + textwrap.indent(added, "    ") + after)
    terms = tmp_path / "fa_hific_jax/training/terms.py"
    terms.write_text(
        terms.read_text().replace("from fa_hific_jax", f"{IMPORT}from fa_hific_jax", 1)
    )
    paths = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT / 'tests'}"}
    done = python("-c", CHECK, cwd=tmp_path, **paths)
    assert done.returncode == 0, done.stderr
