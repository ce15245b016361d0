"""The linear path, the folded networks beside it, and the codec with both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
from coding_model import forward, image_of, init_parameters, moved
from flax.traverse_util import flatten_dict
from tiny_settings import tiny_settings

from fa_hific_jax.codec import float_model, integer_synthesis, tiling
from fa_hific_jax.codec.model import from_params
from fa_hific_jax.codec.model_folder import load_model, load_parameters, save_model
from fa_hific_jax.data.sources import open_source
from fa_hific_jax.entropy.tables import SCALE_TABLE, scale_indexes
from fa_hific_jax.errors import UserError
from fa_hific_jax.models import autoencoder
from fa_hific_jax.models.layers import fold, unfold
from fa_hific_jax.models.linear import (
    BLOCK,
    FINEST_STEP,
    LinearAnalysis,
    LinearSynthesis,
    bands,
    border_filter,
    dct_basis,
    hyperprior_init,
)
from fa_hific_jax.settings.model import BLOCK_VALUES as VALUES

KEY = jax.random.key(0)
FOLDED = {"model__encoder_widths": (8, 4, 6), "model__generator_widths": (6, 4, 8)}
COMPLEMENTED = FOLDED | {"model__fcm_width": 4, "model__latent_channels": 12}


def config_of(linear_path: str, **overrides):
    overrides = {"model__latent_channels": 24, "model__fcm_width": 0, "loss__dsl": 0.0} | overrides
    return tiny_settings(model__linear_path=linear_path, **overrides).model


def analyzed(x, count):
    return jax.jit(LinearAnalysis(count).init_with_output)(KEY, x)[0]


def synthesized(y):
    return jax.jit(LinearSynthesis().init_with_output)(KEY, y)[0]


def test_the_basis_is_the_orthonormal_dct_of_lowest_frequencies_first():
    basis = dct_basis(VALUES)
    np.testing.assert_allclose(basis.T @ basis, np.eye(VALUES), atol=1e-12)
    np.testing.assert_allclose(basis[:, 0], 1 / np.sqrt(VALUES), rtol=1e-12)
    np.testing.assert_array_equal(dct_basis(100), basis[:, :100])
    block = np.random.default_rng(0).normal(size=(BLOCK, BLOCK))
    gray = np.repeat(block[:, :, None], 3, axis=2).ravel()
    ours, theirs = np.sort(np.abs(gray @ basis)), np.abs(scipy.fft.dctn(block, norm="ortho"))
    np.testing.assert_allclose(ours[-(BLOCK**2) :], np.sqrt(3) * np.sort(theirs, None), atol=1e-12)


def test_the_transform_is_inverted_by_its_synthesis_and_of_one_block_is_the_dct():
    x = jax.random.uniform(KEY, (2, 16, 80, 3))
    np.testing.assert_allclose(synthesized(analyzed(x, VALUES)), x, atol=2e-6)
    x = x[:1, :, :BLOCK]
    expected = np.ravel(x - 0.5) @ dct_basis(VALUES) / FINEST_STEP
    np.testing.assert_allclose(analyzed(x, VALUES)[0, 0, 0], expected, rtol=1e-4, atol=1e-4)


def test_the_transform_codes_a_correlated_row_as_well_as_malvars():
    # Coding gain for an autoregressive process: decibels by which the geometric mean of variances,
    # weighted by what errors cost, is below that of pixels. 9.46 is the DCT's, 9.76 the LOT's.
    row = np.arange(8 * BLOCK)
    covariance = 0.95 ** np.abs(np.subtract.outer(row, row))
    mix = np.eye(len(row))
    for border in range(BLOCK, len(row), BLOCK):
        around = slice(border - BLOCK // 2, border + BLOCK // 2)
        mix[around, around] = border_filter()
    transform = np.kron(np.eye(8), scipy.fft.dct(np.eye(BLOCK), norm="ortho", axis=0)) @ mix
    costs = np.square(np.linalg.inv(transform)).sum(0)
    gain = -10 * np.log10(costs * np.diag(transform @ covariance @ transform.T))
    assert np.mean(gain[4 * BLOCK : 5 * BLOCK]) == pytest.approx(9.926, abs=1e-3)


def test_a_mean_is_painted_without_edges_and_an_even_image_stays_even():
    y = jnp.zeros((1, 3, 3, VALUES)).at[0, 1, 1, 0].set(100.0)
    bump = np.asarray(synthesized(y)[0, :, :, 0]) - 0.5
    assert np.max(np.abs(np.diff(bump, axis=0))) < 0.12 * np.max(bump)
    assert np.max(np.abs(bump[[8, 39]])) < 0.01 * np.max(bump)
    np.testing.assert_allclose(bump[[*range(8), *range(40, 48)]], 0, atol=1e-6)
    y = analyzed(jnp.full((1, 48, 32, 3), 0.8), VALUES)
    np.testing.assert_allclose(y[..., 1:], 0, atol=1e-4)
    np.testing.assert_allclose(y[..., 0], y[0, 0, 0, 0], rtol=1e-6)


def test_a_folded_position_holds_its_block_row_by_row():
    image = jnp.arange(8 * 12 * 2.0).reshape(1, 8, 12, 2)
    folded = fold(image, 4)
    assert folded.shape == (1, 2, 3, 32)
    np.testing.assert_array_equal(folded[0, 1, 2], image[0, 4:8, 8:12].ravel())
    np.testing.assert_array_equal(unfold(folded, 4), image)


@pytest.mark.parametrize("widths", [{}, FOLDED], ids=["hific", "folded"])
def test_untrained_the_networks_add_nothing_but_learn(widths):
    x = jax.random.uniform(KEY, (1, 64, 64, 3))
    beside, alone = (config_of(kind, **widths) for kind in ("beside", "alone"))
    params = init_parameters(beside, KEY)
    assert set(init_parameters(alone, KEY)) == {"linear_analysis", "linear_synthesis", "hyperprior"}
    nets = [autoencoder.bind(config, params) for config in (beside, alone)]
    both = [jax.jit(net.analyze)(x)[0] for net in nets]
    np.testing.assert_array_equal(*both)
    images = [jax.jit(net.generate)(jnp.round(both[0])) for net in nets]
    np.testing.assert_allclose(*images, atol=1e-6)

    def loss(params):
        out = forward(beside, params, x, KEY[None])
        return jnp.mean(jnp.square(out.x_hat - x)) + jnp.mean(out.rates.noisy)

    grads = jax.jit(jax.grad(loss))(params)
    learning = [grads[part]["conv_out"] for part in ("encoder", "generator")]
    learning += [grads["linear_analysis"], grads["linear_synthesis"]]
    assert all(jnp.any(leaf) for leaf in jax.tree.leaves(learning))


def test_detail_is_the_share_of_the_complements_whose_features_are_those_of_the_finest_levels():
    config = config_of("beside", **COMPLEMENTED)
    params, x = moved(config, 0.05), jax.random.uniform(KEY, (1, 64, 64, 3))
    out = forward(config, params, x)
    for features in (out.encoder_features, out.fcm_features):
        assert [leaf.shape for leaf in features] == [(1, 16, 16, 8), (1, 8, 8, 4)]
    complements = {name: params["generator"][name] for name in ("fcm1", "fcm2")}
    without = params["generator"] | jax.tree.map(jnp.zeros_like, complements)
    plain = forward(config, params | {"generator": without}, x).x_hat
    detail = jnp.array([0.0, 0.5, 1.0])
    images = forward(config, params, jnp.repeat(x, 3, axis=0), detail=detail).x_hat
    np.testing.assert_allclose(images[:1], plain, atol=1e-5)
    np.testing.assert_allclose(images[2:], out.x_hat, atol=1e-5)
    assert jnp.max(jnp.abs(images[1] - images[0])) > 1e-3


def test_the_folded_generator_refines_the_picture_of_the_linear_path():
    config = config_of("beside", **COMPLEMENTED)
    net = autoencoder.bind(config, moved(config, 0.05))
    y = jnp.round(jax.jit(net.encode)(jax.random.uniform(KEY, (1, 64, 64, 3)))[0])
    state = jax.jit(net.latent_stage)(y)

    @jax.jit
    def added(y_hat):
        return net.pixel_stage(state._replace(y_hat=y_hat))[0] - net.linear_synthesis(y_hat)

    assert jnp.max(jnp.abs(added(y) - added(y.at[:, 1, 1, 0].add(50.0)))) > 1e-2


MANY_RATES = {"model__qualities": 4, "loss__rate_control": "quality"}


@pytest.mark.parametrize(
    ("config", "spread", "modes"),
    [
        (config_of("alone", **MANY_RATES), 0.02, ("exact", "blend")),
        (config_of("beside", **COMPLEMENTED), 0.05, ("exact",)),
    ],
    ids=["linear", "folded"],
)
def test_files_and_tiles_decode_to_what_the_network_gives(
    tmp_path, monkeypatch, config, spread, modes
):
    params, quality = moved(config, spread), 77 / 255 if config.qualities else None
    save_model(from_params(config, params), str(tmp_path / "model"))
    model, image = load_model(str(tmp_path / "model")), image_of(448, 512)
    data = model.compress(image, quality=quality)
    whole = model.decompress(data, mode="whole").astype(int)
    assert np.std(whole) > 10
    x = jnp.asarray(image[None], jnp.float32) / 255
    out = forward(config, params, x, None, None if quality is None else jnp.asarray([quality]))
    expected = np.clip(np.floor(np.asarray(out.x_hat[0]) * 255 + 0.5), 0, 255)
    # The encoder computes in float64 there, and rounds a few latents the other way.
    assert np.mean(np.abs(whole - expected) > 1) < 5e-3
    sides = {"_ENCODER_SIDE": 384, "_HYPER_SIDE": 24, "_LATENT_SIDE": 24, "_PIXEL_SIDE": 24}
    for name, side in sides.items():
        monkeypatch.setattr(tiling, name, side)
    assert model.compress(image, quality=quality, mode="exact") == data
    for mode in modes:
        assert np.max(np.abs(model.decompress(data, mode=mode) - whole)) <= 1


def test_the_integer_synthesis_finds_the_scales_of_the_float_one():
    config = config_of("alone")
    params = moved(config, 0.02)
    z = np.random.default_rng(0).integers(-4, 5, (6, 5, config.hyper_channels), dtype=np.int32)
    integers = float_model.quantize_synthesis(params["hyperprior"], [z])
    mean, rows = integer_synthesis.parameters(integers, z)
    z = jnp.asarray(z[None], jnp.float32)
    expected = autoencoder.bind(config, params).hyperprior.synthesis(z)
    np.testing.assert_allclose(mean, expected[0][0], rtol=1e-3, atol=1e-3)
    assert np.mean(rows != scale_indexes(np.asarray(expected[1][0]), SCALE_TABLE)) < 1e-2
    assert len(np.unique(rows)) > 10


def test_an_untrained_scale_is_about_that_of_photographs():
    config = config_of("alone")
    net = autoencoder.bind(config, init_parameters(config, KEY))
    analyze, source = jax.jit(net.analyze), open_source("photographs:validation")
    photographs = [jnp.float32(source[i][None, :256, :256]) / 255 for i in range(len(source))]
    y = np.concatenate([np.ravel(analyze(x)[0][..., 1:]) for x in photographs])
    _, scale = net.hyperprior.synthesis(jnp.zeros((1, 1, 1, config.hyper_channels)))
    assert 0.3 < np.sqrt(np.mean(np.square(scale[..., 1:]))) / np.std(y) < 3


def test_hyper_latents_begin_with_the_places_of_large_coefficients():
    config = config_of("alone", model__hyper_channels=48)
    net = autoencoder.bind(config, init_parameters(config, KEY))
    # Texture in one of four blocks of a hyper-latent, which averages over 2x2 latents can tell.
    x = np.full((1, 128, 128, 3), 0.5, np.float32)
    x[:, 64:96, 96:128] = np.random.default_rng(0).uniform(0, 1, (32, 32, 1))
    _, z, _ = jax.jit(net.analyze)(jnp.asarray(x))
    assert np.max(np.abs(np.round(z[0, 0]))) <= 1 and np.max(z[0, 1, 1]) > 3
    _, scale = net.hyperprior.synthesis(jnp.round(z))
    luma = [k for k in range(24) if bands(24)[k] >= 0][:8]
    louder = np.log(scale[0][..., luma]).mean(-1)
    assert np.unravel_index(np.argmax(louder), louder.shape) in [(4, 6), (4, 7), (5, 6), (5, 7)]
    assert np.mean(louder[4:6, 6:8]) > np.mean(louder[:2, :2]) + 0.5


@pytest.mark.parametrize("hyper_channels", [1, 9])
def test_few_hyper_latents_have_room_for_few_bands(hyper_channels):
    analysis, _, log_scale = hyperprior_init(hyper_channels, 24)
    assert np.count_nonzero(analysis[2]) == 4 * (hyper_channels // 4)
    assert np.isfinite(log_scale).all()


@pytest.mark.parametrize(
    "overrides",
    [
        {"model__input_range": "symmetric"},
        {"model__latent_channels": VALUES + 1},
        {"model__fcm_width": 4, "model__linear_path": "alone"},
    ],
)
def test_shapes_that_do_not_go_together_are_named(overrides):
    with pytest.raises(UserError, match=next(iter(overrides)).removeprefix("model__")):
        tiny_settings(**({"model__linear_path": "beside"} | overrides))


def test_the_model_that_comes_with_the_package_has_every_parameter_of_its_networks():
    """Its folder has names from before the linear transform was a part of its own."""
    config = load_model("lite").config
    shapes = jax.eval_shape(lambda key: autoencoder.init_parameters(config, key), KEY)
    expected = {name: leaf.shape for name, leaf in flatten_dict(shapes, sep="/").items()}
    _, leaves = load_parameters("lite")
    assert {name: leaf.shape for name, leaf in leaves.items()} == expected
