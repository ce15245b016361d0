"""Each config builds valid settings with its source's numbers; paper size takes a real step."""

import csv
import functools
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from absl import flags
from etils import epath
from ml_collections import config_flags

from configs import fa_hific, hific, lite, mse_lpips, tiny
from fa_hific_jax import settings as settings_lib
from fa_hific_jax.losses.lpips import load_lpips
from fa_hific_jax.models.autoencoder import init_parameters
from fa_hific_jax.training.loop import train
from fa_hific_jax.training.state import create
from fa_hific_jax.training.step import train_step

RECIPES = (mse_lpips, hific, fa_hific)
VARIANTS = ("lo", "mi", "hi")
each_recipe = pytest.mark.parametrize("module", RECIPES)


def build(config) -> settings_lib.Settings:
    return settings_lib.from_mapping(config.to_dict())


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("stage", lite.STAGES)
def test_lite_is_one_model_for_every_rate_of_at_most_12_million_parameters(stage):
    light = build(lite.get_config(stage))
    shapes = jax.eval_shape(functools.partial(init_parameters, light.model), jax.random.key(0))
    assert count(shapes) <= 12_000_000
    assert light.model.qualities and light.loss.rate_control == "quality"


def test_lite_has_the_weights_of_fa_hific():
    light, paper = build(lite.get_config("fa")).loss, build(fa_hific.get_config("lo")).loss
    for weight in ("mse", "lpips", "gan", "ffl", "dsl", "dsl_options"):
        assert getattr(light, weight) == getattr(paper, weight)


def test_tiny_uses_a_data_folder_where_one_is_named(monkeypatch):
    monkeypatch.setenv("FA_HIFIC_DATA", "/photographs")
    data = build(tiny.get_config()).data
    assert (data.train, data.evaluation) == (("/photographs/train",), "/photographs/kodak")
    monkeypatch.delenv("FA_HIFIC_DATA")
    assert build(tiny.get_config()).data.evaluation == "photographs:validation"


@pytest.mark.parametrize(
    ("module", "variant", "known"),
    [(hific, "low", "one of lo, mi"), (lite, "low", "one of start"), (fa_hific, "lo_vae", "lo or")],
)
def test_unknown_variant_is_named(module, variant, known):
    with pytest.raises(ValueError, match=f"'{variant}' does not exist: choose {known}"):
        module.get_config(variant)


@each_recipe
@pytest.mark.parametrize("variant", VARIANTS)
def test_recipes_have_the_constants_of_the_reference(module, variant, golden):
    reference, regime = golden("losses"), VARIANTS.index(variant)
    settings = build(module.get_config(variant))
    loss, optimizer = settings.loss, settings.optimizer
    assert loss.lambda_above == reference["lambda_A"][regime]
    assert loss.target_bpp == reference["target_rate"][regime]
    assert loss.lambda_below == reference["lambda_B"]
    assert (loss.mse, loss.lpips) == (reference["k_M"], reference["k_P"])
    assert loss.gan == (0 if module is mse_lpips else reference["beta"])
    assert (loss.warmup_steps, loss.warmup_factors) == (50_000, (2.0, 0.20 / 0.14))
    assert optimizer.learning_rate == optimizer.discriminator_learning_rate == 1e-4
    assert (optimizer.drop_steps, optimizer.drop_factor) == ((500_000,), 0.1)
    assert (optimizer.warmup_steps, optimizer.clip_norm) == (0, 0.0)
    assert (settings.train.steps, settings.train.batch_size, settings.data.crop) == (10**6, 8, 256)
    assert (settings.init_from, settings.trainable) == ("", ())


def table(path) -> list[dict[str, str]]:
    if not path.exists():
        pytest.skip(f"no published numbers at {path}: set FA_HIFIC_DATA")
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_hific_quotes_the_numbers_published_with_the_original(data_folder):
    published = table(data_folder / "hific_paper" / "data.csv")
    rows = [row for row in published if row["dataset"] == "kodak"]
    for variant, row in zip(VARIANTS, rows, strict=True):
        bpp, psnr, lpips = (float(row[key]) for key in ("bpp", "PSNR", "LPIPS"))
        line = f"\n  {variant}  {bpp:.3f} bpp, {psnr:.2f} dB, LPIPS {lpips:.4f}\n"
        assert line in hific.__doc__


def test_fa_hific_quotes_the_points_of_the_poster(data_folder):
    rows = {"HiFiC": [], "FA-HiFiC": []}
    for row in table(data_folder / "poster.csv"):
        bpp, psnr, lpips = (float(row[key]) for key in ("bpp", "psnr_db", "lpips"))
        rows[row["method"]].append(f"{bpp:.3f} bpp, {psnr:.1f} dB, LPIPS {lpips:.3f}")
    for variant, theirs, plain in zip(VARIANTS, rows["FA-HiFiC"], rows["HiFiC"], strict=True):
        assert f"\n  {variant}  {theirs}  ({plain})\n" in fa_hific.__doc__


def commands(text: str) -> list[list[str]]:
    """Arguments of the training commands in a text, its variable $data being left out."""
    joined = text.replace("\\\n", " ").replace("$data", "")
    lines = re.findall(
        r"^ *(?:\w+=\S+ |srun )?python train\.py (.*?)(?: +#.*)?$", joined, re.MULTILINE
    )
    # Flags of the process beside those of the config and the run are train.py's own business.
    own = ("--coordinator=", "--processes=", "--process=")
    return [[word for word in shlex.split(line) if not word.startswith(own)] for line in lines]


PAGE = Path(__file__).resolve().parents[1] / "docs" / "training.md"
TEXTS = (*(module.__doc__ for module in RECIPES), PAGE.read_text("utf-8"))
DOCUMENTED = [command for text in TEXTS for command in commands(text) if "..." not in command]


@pytest.mark.parametrize("arguments", DOCUMENTED, ids=" ".join)
def test_documented_commands_build_settings(arguments, monkeypatch):
    """Parsed as train.py does, whose flags of single keys follow from the command line."""
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=values)
    flags.DEFINE_string("workdir", "", "", flag_values=values)
    assert values(sys.argv) == ["train.py"]
    settings = build(holder.value)
    if settings.trainable and "generator/" not in settings.trainable:
        state = jax.eval_shape(functools.partial(create, settings), jax.random.key(0))
        assert count(state.optimizer) < 2e6


@pytest.mark.slow
@each_recipe
def test_headers_state_the_operations_of_a_step(module, data_folder):
    """XLA's own count of the step as lowered for a GPU, at paper size.

    2 % for other versions of JAX. On a CPU it has a few per cent more, of convolutions in blocks.
    """
    lpips = load_lpips(str(data_folder / "lpips" / "lpips_alex.npz"))
    settings = build(module.get_config("lo"))
    state = jax.eval_shape(functools.partial(create, settings), jax.random.key(0))
    images = jax.ShapeDtypeStruct((8, 256, 256, 3), np.uint8)
    fixed = {"key": jax.random.key(0), "lpips_params": lpips, "settings": settings}
    with jax.numpy_dtype_promotion("standard"):
        step = jax.jit(functools.partial(train_step, **fixed))
        lowered = step.trace(state, images).lower(lowering_platforms=("cuda",))
        cost: Any = lowered.cost_analysis()
    stated = re.search(r"([\d.]+) TFLOP per step as JAX counts them, (\d+)\nhours", module.__doc__)
    assert stated
    np.testing.assert_allclose(cost["flops"] / 1e12, float(stated[1]), rtol=0.02)
    assert round(float(stated[1]) * 1e6 / 40 / 3600) == int(stated[2])


@pytest.mark.slow
@pytest.mark.parametrize("module", [hific, fa_hific])
def test_paper_size_takes_one_real_step(module, tmp_path, data_folder):
    config = module.get_config("lo")
    with config.unlocked():
        config.loss.lpips_file = str(data_folder / "lpips" / "lpips_alex.npz")
        config.data.train = ("photographs:train",)
        config.train.steps = 1
        config.train.batch_size = 2
        config.train.log_every = 1
    settings = build(config)
    with jax.numpy_dtype_promotion("standard"):
        state = train(settings, epath.Path(tmp_path))
    assert int(state.step) == 1
    assert all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))
