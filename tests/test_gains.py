"""One model for every rate, and for every share of detail: networks, training and files agree."""

import dataclasses
import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coding_model import forward, init_parameters, moved
from hypothesis import given
from hypothesis import strategies as st
from tiny_settings import tiny_settings

from fa_hific_jax.codec import bitstream
from fa_hific_jax.codec.model import from_params
from fa_hific_jax.codec.model_folder import load_model, save_model
from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.focal_frequency import focal_frequency_loss
from fa_hific_jax.models import autoencoder
from fa_hific_jax.models.fcm import frequency_complement, scaled
from fa_hific_jax.models.gains import interpolate
from fa_hific_jax.training import conditioning
from fa_hific_jax.training import step as steps
from fa_hific_jax.training.conditioning import Conditioning
from fa_hific_jax.training.state import create

SETTINGS = tiny_settings(
    model__qualities=4,
    loss__rate_control="quality",
    loss__detail_zero=0.5,
    loss__lambda_above=4.0,
    loss__warmup_steps=0,
    loss__gan=0.0,
    loss__dsl=0.0,
)
CONFIG = SETTINGS.model
KEY = jax.random.key(0)
IMAGE = np.random.default_rng(0).integers(0, 256, (96, 70, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def params():
    """Random parameters whose every part matters: gains apart, FCMs that add something."""
    params = jax.tree.map(np.asarray, moved(CONFIG, 0.1))
    kernel = params["encoder"]["conv_out"]["Conv_0"]["kernel"]
    params["encoder"]["conv_out"]["Conv_0"]["kernel"] = 5.0 * kernel
    return params


@pytest.fixture(scope="module")
def model(params):
    return from_params(CONFIG, params)


@hypothesis.settings(deadline=None, max_examples=30)
@given(st.floats(0.0, 1.0), st.integers(2, 6))
def test_gains_are_interpolated_geometrically(quality, count):
    table = np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)
    expected = [np.interp(quality, np.linspace(0, 1, count), column) for column in table.T]
    found = interpolate(jnp.asarray(table), jnp.asarray([quality], jnp.float32))
    np.testing.assert_allclose(found[0], expected, atol=3e-6)


@pytest.mark.parametrize(("level", "detail"), [(0, 0.4), (77, 0.0), (255, 1.0)])
def test_files_decode_to_what_the_network_gives_at_that_quality_and_detail(
    params, model, level, detail
):
    quality = level / 255
    data = model.compress(IMAGE, quality=quality)
    decoded = model.decompress(data, detail=detail)
    knob = [jnp.asarray([value], jnp.float32) for value in (quality, detail)]
    outputs = forward(CONFIG, params, jnp.asarray(IMAGE[None], jnp.float32) / 255.0, None, *knob)
    y_hat = model._open(data, 2**20)[1][None]
    # The integer synthesis gives other means, a little: a symbol in many is another.
    assert np.mean(np.isclose(y_hat, outputs.y_hat, atol=0.02 / (0.25 + quality))) > 0.97
    x_hat = picture(params, jnp.asarray(y_hat), knob[1])
    expected = np.clip(np.asarray(x_hat[0, :96, :70]) * 255.0, 0, 255)
    assert np.max(np.abs(decoded - expected)) <= 0.51


@jax.jit
def picture(params, y_hat, detail):
    network = autoencoder.bind(CONFIG, params)
    return network.pixel_stage(network.latent_stage(y_hat), detail=detail)[0]


def test_the_quality_is_in_the_file_and_costs_a_byte(model):
    container = bitstream.unpack(model.compress(IMAGE, quality=0.25))
    assert container.quality == 64
    without = bitstream.pack(container._replace(quality=None))
    assert len(bitstream.pack(container)) == len(without) + 1
    with pytest.raises(bitstream.BitstreamError, match="whether there is a quality"):
        model.decompress(without)


def test_more_quality_is_more_bytes_and_the_search_finds_the_largest_file_below_a_rate(model):
    sizes = [len(model.compress(IMAGE, quality=level / 255)) for level in (0, 100, 255)]
    assert sizes[0] < sizes[1] < sizes[2]
    for target in (sizes[1], 0.5 * (sizes[0] + sizes[2])):
        quality = model.quality_for(IMAGE, 8 * target / (96 * 70))
        assert len(model.compress(IMAGE, quality=quality)) <= target
        assert len(model.compress(IMAGE, quality=quality + 1 / 255)) > 0.99 * target
    assert model.quality_for(IMAGE, 1e-6) == 0.0
    assert model.quality_for(IMAGE, 1e6) == 1.0


def test_a_model_folder_keeps_the_gains_and_the_id_covers_those_of_the_decoder(
    params, model, tmp_path
):
    loaded = load_model(save_model(model, tmp_path / "model"))
    assert loaded.model_id == model.model_id
    assert loaded.compress(IMAGE, quality=0.3) == model.compress(IMAGE, quality=0.3)
    gains = params["gains"] | {"log_inverse": params["gains"]["log_inverse"] + 0.01}
    assert from_params(CONFIG, params | {"gains": gains}).model_id != model.model_id


@pytest.mark.parametrize(
    ("kind", "level"), [("hific", 1), ("conv", 1), ("residual", 1), ("attention", 2)]
)
def test_a_share_of_a_module_is_that_share_of_what_it_adds(kind, level):
    module = frequency_complement(kind, level, 8)
    b = jax.random.normal(KEY, (1, 8, 8, 8))
    params = jax.tree.map(lambda leaf: leaf + 0.3, jax.jit(module.init)(KEY, b)["params"])
    apply = jax.jit(lambda params: module.apply({"params": params}, b)[1] - b)
    whole, part = apply(params), apply(scaled(params, 0.25))
    atol = 2e-6 * float(jnp.max(jnp.abs(whole))) + 1e-6
    np.testing.assert_allclose(part, 0.25 * whole, atol=atol)


def test_choices_out_of_range_or_that_a_model_does_not_have_are_refused(model):
    with pytest.raises(UserError, match="quality is 1.5: it must lie between 0 and 1"):
        model.compress(IMAGE, quality=1.5)
    with pytest.raises(UserError, match="detail is -1: it must lie between"):
        model.decompress(model.compress(IMAGE), detail=-1.0)
    plain = dataclasses.replace(CONFIG, qualities=0, fcm_width=0)
    single = from_params(plain, init_parameters(plain, KEY))
    for refused, options in (
        (single.compress, {"quality": 0.5}),
        (single.quality_for, {"bpp": 1.0}),
    ):
        with pytest.raises(UserError, match="single rate"):
            refused(IMAGE, **options)
    with pytest.raises(UserError, match="no frequency complement modules"):
        single.decompress(single.compress(IMAGE), detail=0.5)


def test_drawn_conditioning_has_the_stated_distribution():
    drawn = conditioning.draw(jax.random.split(KEY, 4000), SETTINGS)
    assert np.isclose(np.mean(drawn.detail == 0.0), 0.5, atol=0.03)
    assert np.isclose(np.mean(drawn.detail[drawn.detail > 0]), 0.5, atol=0.03)
    assert np.isclose(np.mean(drawn.quality), 0.5, atol=0.02)
    assert abs(np.corrcoef(drawn.quality, drawn.detail)[0, 1]) < 0.05
    assert conditioning.draw(jax.random.split(KEY, 2), tiny_settings()) == Conditioning()


def test_the_weight_of_the_rate_falls_geometrically():
    quality = jnp.asarray([0.0, 0.5, 1.0], jnp.float32)
    above, below = SETTINGS.loss.lambda_above, SETTINGS.loss.lambda_below
    found = conditioning.image_lambda(jnp.ones(()), quality, SETTINGS.loss)
    np.testing.assert_allclose(found, [above, (above * below) ** 0.5, below], rtol=1e-6)


def test_a_step_weights_each_image_by_its_own_conditioning(params):
    """The step's gradient is that of the loss written out image by image."""
    state = jax.jit(functools.partial(create, SETTINGS))(KEY)
    state = state.replace(params=state.params | {"autoencoder": params})
    images = np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    step = jax.jit(functools.partial(steps.train_step, settings=SETTINGS))
    with jax.numpy_dtype_promotion("standard"):  # Optax raises a float to an integer power.
        _, metrics = step(state, images, KEY, None)
    batch = steps.make_batch(jnp.asarray(images), KEY, jnp.zeros((), jnp.int32), SETTINGS)
    x, _, drawn = batch
    outputs = jax.jit(functools.partial(steps.forward, settings=SETTINGS))(params, batch)
    weights = conditioning.image_lambda(jnp.ones(()), drawn.quality, SETTINGS.loss)
    np.testing.assert_allclose(metrics["lambda_rate"], jnp.mean(weights), rtol=1e-6)
    np.testing.assert_allclose(metrics["bpp_noisy"], jnp.mean(outputs.rates.noisy), rtol=1e-5)
    assert "bpp_target" not in metrics

    def ffl(x_hat):
        single = [focal_frequency_loss(a[None], b[None]) for a, b in zip(x_hat, x, strict=True)]
        return SETTINGS.loss.ffl * jnp.mean(drawn.detail * jnp.stack(single))

    norm = jnp.linalg.norm(jax.jit(jax.grad(ffl))(outputs.x_hat).ravel())
    np.testing.assert_allclose(metrics["grad_norm_term/ffl"], norm, rtol=1e-3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model__qualities": 1}, "model.qualities is 1: give 0 for a single rate"),
        ({"model__qualities": 4}, "a model with gains needs 'quality'"),
        ({"loss__rate_control": "quality"}, "a model with gains needs 'quality'"),
        ({"loss__detail_zero": 1.0}, "loss.detail_zero is 1.0"),
        ({"loss__detail_zero": 0.5, "model__fcm_width": 0, "loss__dsl": 0.0}, "it needs FCMs"),
    ],
)
def test_settings_that_do_not_go_together_are_named(overrides, message):
    with pytest.raises(UserError, match=message):
        tiny_settings(**overrides)
