"""Each config builds valid settings with its source's numbers; paper size takes a real step."""

import functools
import importlib

import jax
import numpy as np
import pytest
from etils import epath

from configs import demo, fa_hific, hific, mse_lpips, tiny
from fa_hific_jax import settings as settings_lib
from fa_hific_jax.models.autoencoder import init_parameters
from fa_hific_jax.training.loop import train
from fa_hific_jax.training.state import create


def build(config) -> settings_lib.Settings:
    return settings_lib.from_mapping(config.to_dict())


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("module", [mse_lpips, hific, fa_hific])
@pytest.mark.parametrize(
    ("variant", "target", "lambda_above"), [("lo", 0.14, 2.0), ("mi", 0.30, 1.0), ("hi", 0.45, 0.5)]
)
def test_rates_are_those_of_hific(module, variant, target, lambda_above):
    loss = build(module.get_config(variant)).loss
    assert (loss.target_bpp, loss.lambda_above, loss.lambda_below) == (target, lambda_above, 1 / 16)
    assert (loss.mse, loss.lpips) == (0.075 / 32, 1.0)


def test_stages_add_their_losses():
    stages = [build(module.get_config()).loss for module in (mse_lpips, hific, fa_hific)]
    assert [(stage.gan, stage.ffl, stage.dsl) for stage in stages] == [
        (0, 0, 0),
        (0.15, 0, 0),
        (0.15, 0.5, 0.25),
    ]


def test_frequency_weights_of_fa_vae_are_a_variant():
    authors, favae = (build(fa_hific.get_config(name)).loss for name in ("mi", "mi_favae"))
    assert (favae.ffl, favae.dsl, favae.dsl_weighting) == (1.0, 0.01, "mean")
    assert (authors.ffl, authors.dsl, authors.dsl_weighting) == (0.5, 0.25, "authors")
    assert not (favae.dsl_legacy_kernel or authors.dsl_legacy_kernel)
    assert (favae.target_bpp, favae.gan) == (authors.target_bpp, authors.gan)
    with pytest.raises(ValueError, match="'lo_vae' does not exist: choose lo or lo_favae"):
        fa_hific.get_config("lo_vae")


def test_embedded_configs_need_no_files():
    for module in (demo, tiny):
        settings = build(module.get_config())
        assert settings.loss.lpips == 0 and settings.loss.ffl and settings.loss.dsl
        assert settings.loss.gan and settings.model.fcm_width


def test_tiny_uses_a_data_folder_where_one_is_named(monkeypatch):
    monkeypatch.setenv("FA_HIFIC_DATA", "/photographs")
    data = build(tiny.get_config()).data
    assert (data.train, data.evaluation) == (("/photographs/train",), "/photographs/kodak")
    monkeypatch.delenv("FA_HIFIC_DATA")
    assert build(tiny.get_config()).data.evaluation == "photographs:held_out"


@pytest.mark.parametrize("module", [mse_lpips, hific, fa_hific])
def test_unknown_variant_is_named(module):
    with pytest.raises(
        ValueError, match="config variant 'low' does not exist: choose one of lo, mi"
    ):
        module.get_config("low")


def test_a_typo_in_a_config_file_fails_where_it_stands():
    config = importlib.import_module("configs.base").get_config()
    with pytest.raises(AttributeError, match="taget_bpp"):
        config.loss.taget_bpp = 0.3


def test_parameter_counts_of_the_paper():
    model = build(hific.get_config()).model
    params = jax.eval_shape(functools.partial(init_parameters, model), jax.random.key(0))
    hyper = params["hyperprior"]
    assert count(params["encoder"]) == 7_423_420
    assert count(params["generator"]) == 156_774_683
    assert count(hyper["analysis"]) == 5_754_560
    assert count(hyper["synthesis_mean"]) == count(hyper["synthesis_scale"]) == 5_754_460
    state = jax.eval_shape(functools.partial(create, build(hific.get_config())), jax.random.key(0))
    assert count(state.discriminator.params) == 2_793_117


@pytest.mark.slow
@pytest.mark.parametrize("module", [hific, fa_hific])
def test_paper_size_takes_one_real_step(module, tmp_path, data_folder):
    weights = str(data_folder / "lpips" / "lpips_alex.npz")
    config = module.get_config("lo")
    with config.unlocked():
        config.loss.lpips_file = weights
        config.data.train = ("photographs:train",)
        config.train.steps = 1
        config.train.batch_size = 2
        config.train.log_every = 1
    settings = build(config)
    with jax.numpy_dtype_promotion("standard"):
        state = train(settings, epath.Path(tmp_path))
    assert int(state.step) == 1
    assert all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))
