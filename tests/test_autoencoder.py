"""The whole codec as a network: any size, what is rounded when, rates, gradients, precision."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_weights
from coding_model import coding_config
from reference_weights import nchw, nhwc

from fa_hific_jax import ops
from fa_hific_jax.models import autoencoder
from fa_hific_jax.models.autoencoder import Autoencoder, init_parameters
from fa_hific_jax.settings.model import ModelConfig

TINY = coding_config(
    encoder_widths=(6, 8, 8, 8, 10),
    generator_widths=(10, 8, 8, 8, 6),
    latent_channels=5,
    hyper_rounding="noise",
)
PLAIN = dataclasses.replace(TINY, fcm_width=0)
ROUNDED_Z = dataclasses.replace(TINY, hyper_rounding="straight_through")


@functools.partial(jax.jit, static_argnums=0)
def apply(config, parameters, x, key=None):
    keys = None if key is None else jax.random.split(key, len(x))
    return Autoencoder(config).apply({"params": parameters}, x, keys)


@pytest.fixture(scope="module")
def parameters():
    """Random parameters, spread so widely that latents do not all round to their means."""
    shapes = jax.eval_shape(lambda key: init_parameters(TINY, key), jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.3, s.shape), jnp.float32), shapes)


def image(height: int = 64, width: int = 64) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).random((1, height, width, 3)), jnp.float32)


@pytest.mark.parametrize("height, width", [(1, 1), (65, 63)])
def test_an_image_is_coded_as_its_padded_self_with_the_rate_per_pixel_of_its_own(
    parameters, height, width
):
    x = image(height, width)
    padded = ops.pad_to_multiple(x, 64)
    out, whole = (apply(TINY, parameters, i) for i in (x, padded))
    assert out.x_hat.shape == x.shape
    np.testing.assert_allclose(out.x_hat, whole.x_hat[:, :height, :width], atol=1e-5)
    bits, expected = out.rates.rounded * x.size, whole.rates.rounded * padded.size
    np.testing.assert_allclose(bits, expected, rtol=1e-5)
    # Features of encoder and FCM pair up by level at the padded size.
    h, w = padded.shape[1:3]
    for features in (out.encoder_features, out.fcm_features):
        assert [a.shape for a in features] == [(1, h, w, 6), (1, h // 2, w // 2, 8)]


def test_noise_of_the_rate_comes_from_the_key_alone(parameters):
    first, again, other = (apply(TINY, parameters, image(), jax.random.key(k)) for k in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert first.rates.noisy != other.rates.noisy
    np.testing.assert_array_equal(first.y, other.y)
    rates = apply(TINY, parameters, image()).rates
    np.testing.assert_array_equal(rates.noisy, rates.rounded)
    np.testing.assert_allclose(rates.rounded_y + rates.rounded_z, rates.rounded, rtol=1e-6)
    assert rates.rounded_y.min() > 0 and rates.rounded_z.min() > 0


def test_decoded_latents_lie_whole_steps_from_means_of_noisy_or_rounded_hyper_latents(parameters):
    hyperprior, key = autoencoder.bind(TINY, parameters).hyperprior, jax.random.key(3)
    plain = apply(TINY, parameters, image())
    rounded, noisy = (apply(config, parameters, image(), key) for config in (ROUNDED_Z, TINY))
    mean = jax.jit(lambda z_hat: hyperprior.synthesis(z_hat)[0])(plain.z_hat)
    for out in (plain, rounded):
        np.testing.assert_array_equal(out.z_hat, np.round(plain.z_hat))
        steps = out.y_hat - mean
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-5)
        assert np.abs(np.round(steps)).max() >= 1
        assert np.abs(out.y_hat - out.y).max() <= 0.5 + 1e-5
    # With rounded z the decoder's latents are those of evaluation, with noisy z other means.
    np.testing.assert_allclose(rounded.y_hat, plain.y_hat, atol=1e-5)
    np.testing.assert_array_equal(noisy.z_hat, plain.z_hat)
    assert np.abs(noisy.y_hat - plain.y_hat).max() > 0.01


def test_gradients_pass_the_rounding_of_y_unchanged_and_none_reaches_its_mean(parameters):
    x, weights = image(), jax.random.normal(jax.random.key(0), (1, 4, 4, 5))

    def loss(p):
        return jnp.sum(Autoencoder(PLAIN).apply({"params": p}, x).y_hat * weights)

    found = jax.jit(jax.grad(loss))(parameters)
    # y is its last convolution's output: its bias moves every pixel of a channel alike.
    bias = found["encoder"]["conv_out"]["Conv_0"]["bias"]
    np.testing.assert_allclose(bias, jnp.sum(weights, axis=(0, 1, 2)), rtol=1e-5, atol=1e-6)
    for leaf in jax.tree.leaves(found["hyperprior"]):
        np.testing.assert_allclose(leaf, np.zeros(leaf.shape), atol=1e-6)


def test_bfloat16_stays_close_and_all_but_features_is_float32(parameters):
    wide = apply(TINY, parameters, image())
    narrow = apply(dataclasses.replace(TINY, dtype="bfloat16"), parameters, image())
    for array in (*narrow.rates, narrow.y, narrow.y_hat, narrow.z_hat, narrow.x_hat):
        assert array.dtype == jnp.float32 and np.isfinite(array).all()
    assert {array.dtype for array in narrow.encoder_features} == {jnp.dtype("bfloat16")}
    assert reference_weights.relative_error(narrow.y, wide.y) < 0.03
    assert reference_weights.relative_error(narrow.rates.rounded, wide.rates.rounded) < 0.03


@pytest.fixture
def reference_rates(golden, monkeypatch):
    """(reference numbers, parameters, code): what an autoencoder with a given y makes of it.

    `code(y, hyperprior, keys)` draws the reference's noise where it is given keys.
    """
    data = golden("hyper")
    parameters = reference_weights.hyperprior()  # while the networks are whole
    noise = {a.shape[1:]: a[0] for a in map(nhwc, (data["noise_z"], data["noise_y"]))}
    uniform = jax.random.uniform  # initializers draw from it as well

    def stored(key, shape=(), *args, **kwargs):
        return noise[shape] if shape in noise else uniform(key, shape, *args, **kwargs)

    monkeypatch.setattr(jax.random, "uniform", stored)
    x = jnp.zeros((1, *data["spatial_shape"].tolist(), 3))
    monkeypatch.setattr(Autoencoder, "latent_stage", lambda self, y_hat: y_hat)
    monkeypatch.setattr(Autoencoder, "pixel_stage", lambda self, state, **_: (x, ()))

    def code(y, hyperprior, keys):
        monkeypatch.setattr(Autoencoder, "encode", lambda self, x, size: (y, ()))
        return Autoencoder(ModelConfig()).apply({"params": {"hyperprior": hyperprior}}, x, keys)

    return data, parameters, code


def check_against_reference(data, mode, out):
    *noisy, rounded_y, rounded_z, rounded = data[f"{mode}_bpp_f64"]
    # The reference adds noise in evaluation too; there our noisy rate is the rounded one.
    expected = [noisy[-1] if mode == "train" else rounded, rounded, rounded_y, rounded_z]
    np.testing.assert_allclose(np.ravel(out.rates), expected, rtol=1e-5)  # measured: 1e-7
    far = far_from_rounding(data, f"{mode}_decoded", f"{mode}_y_near_boundary_idx")
    found, expected = nchw(out.y_hat)[far], data[f"{mode}_decoded"][far]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def far_from_rounding(data, name, boundary):
    """Where latents are, but for those within 1e-4 of where rounding goes the other way."""
    far = np.ones(data[name].shape, bool)
    far.ravel()[data[boundary]] = False
    return far


def test_rates_and_decoded_latents_of_evaluation_equal_the_reference(reference_rates):
    data, parameters, code = reference_rates
    out = jax.jit(code)(nhwc(data["y"]), parameters, None)
    check_against_reference(data, "eval", out)
    far = far_from_rounding(data, "eval_z_quantised", "eval_z_near_boundary_idx")
    np.testing.assert_array_equal(nchw(out.z_hat)[far], data["eval_z_quantised"][far])


def test_rates_decoded_latents_and_gradients_of_training_equal_the_reference(reference_rates):
    data, parameters, code = reference_rates
    weights = nhwc(data["grad_w_decoded"])

    def loss(y, hyperprior):
        out = code(y, hyperprior, jax.random.split(jax.random.key(0), 1))
        return jnp.sum(out.rates.noisy) + jnp.sum(out.y_hat * weights) / 1000, out

    compute = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (value, out), (dy, grads) = compute(nhwc(data["y"]), parameters)
    check_against_reference(data, "train", out)
    np.testing.assert_allclose(value, data["grad_loss_f64"], rtol=1e-5)
    pairs = {"grad_y_f64": nchw(dy)}
    for which, ours in [("mu", "synthesis_mean"), ("std", "synthesis_scale")]:
        pairs[f"grad_{which}_conv3_bias_f64"] = grads[ours]["conv2"]["Conv_0"]["bias"]
    for name, density in grads["prior"].items():  # our h0 is their H_0
        pairs[f"grad_{name[0].replace('h', 'H')}_{name[1]}_f64"] = density[:16]
    assert len(pairs) == 15
    for name, found in pairs.items():
        # Measured: 1e-5 for y, 1e-6 to 9e-6 for parameters.
        assert reference_weights.relative_error(found, data[name]) < 1e-4, name


WITHOUT = {"fcm_width": 0, "latent_channels": 5}
FOLDED = {"encoder_widths": (8, 4, 6), "generator_widths": (6, 4, 8), "latent_channels": 5}


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        coding_config(**FOLDED),
        coding_config(**FOLDED, linear_path="beside"),
        coding_config(**WITHOUT, linear_path="alone"),
    ],
    ids=["hific", "folded", "folded beside linear", "linear"],
)
def test_an_image_within_a_larger_array_gives_what_it_gives_alone(config, request):
    params = jax.jit(init_parameters, static_argnums=0)(config, jax.random.key(0))
    request.getfixturevalue("x64")
    # FCM begin at zero and would hide what they do.
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64) + 0.01, params)
    rng = np.random.default_rng(0)
    canvas = jnp.asarray(rng.random((1, 128, 192, 3)))
    latents = jnp.asarray(rng.normal(size=(1, 8, 12, 5)))
    net = autoencoder.bind(config, params, "float64")
    analyze, generate = jax.jit(net.analyze), jax.jit(net.generate)

    y, z, _ = analyze(canvas, (jnp.int32(64), jnp.int32(128)))
    alone_y, alone_z, _ = analyze(canvas[:, :64, :128])
    np.testing.assert_allclose(y[:, :4, :8], alone_y, rtol=0, atol=1e-12)
    np.testing.assert_allclose(z[:, :1, :2], alone_z, rtol=0, atol=1e-12)
    part = generate(latents, (jnp.int32(4), jnp.int32(8)))[:, :64, :128]
    np.testing.assert_allclose(part, generate(latents[:, :4, :8]), rtol=0, atol=1e-12)
