"""FCMs: the authors' numbers, each kind by its formula, sizes, dropout, and how they begin."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_weights
from reference_weights import nchw, nhwc, relative_error, statistics
from tiny_settings import tiny_settings

from fa_hific_jax.errors import UserError
from fa_hific_jax.fidelity.authors import legacy_gaussian_blur
from fa_hific_jax.models.fcm import LOCAL_KINDS, attention, frequency_complement
from fa_hific_jax.models.hific import Encoder, Generator
from fa_hific_jax.models.random import drop
from fa_hific_jax.settings.model import ModelConfig

# The attention kind is the residual one at level 1.
MODULES = [("hific", 1), ("conv", 1), ("residual", 1), ("attention", 1), ("attention", 2)]
FLOAT64 = jnp.dtype("float64")
# Measured against the reference: 2e-6 to 3e-6 for values up to 6, 3e-5 for blurred ones up to 46.
NEAR = {"rtol": 1e-4, "atol": 1e-4}


def legacy_parameters(name, shape, channels):
    """The authors' parameters of a module for features of a height and width."""
    tree, widths = {}, (channels, 64, 64, channels)
    for layer, (inputs, outputs) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        norm, conv = f"{name}.{4 * layer}", f"{name}.{4 * layer + 3}"
        tree[f"norm{layer}"] = {
            "scale": reference_weights.gain(f"{norm}.weight", shape),
            "bias": reference_weights.offset(f"{norm}.bias", shape),
        }
        tree[f"conv{layer}"] = {"Conv_0": reference_weights.convolution(conv, inputs, outputs, 3)}
    return tree


def test_legacy_kind_and_its_gradients_equal_the_authors(golden, x64):
    data = golden("authors_fcm")
    x, weights = (nhwc(data[key], jnp.float64) for key in ("small_x", "small_w"))
    parameters = legacy_parameters("FCM2small", x.shape[1:3], 120)
    parameters = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), parameters)
    module = frequency_complement("legacy", 2, 64, dropout=0.5, dtype=FLOAT64)

    def loss(p, x):
        c, after = module.apply({"params": p}, x)
        return jnp.sum(c * weights), (c, after)

    compute = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (dp, dx), (c, after) = compute(parameters, x)
    assert relative_error(nchw(c)[:, ::4], data["small_out_f64"]) < 1e-10
    assert relative_error(nchw(dx)[:, ::8], data["small_grad_x_f64"]) < 1e-10
    assert relative_error(dp["norm0"]["scale"], data["small_grad_ln0_weight_f64"]) < 1e-10
    np.testing.assert_array_equal(after, x + c)


def blurred(features):
    """The one channel of the authors' blur of each level."""
    return [np.asarray(legacy_gaussian_blur(f, jnp.asarray(3.0), 9))[..., 0] for f in features]


def test_blurred_features_of_the_encoder_equal_the_authors(golden):
    data, encoder = golden("authors_full"), Encoder(ModelConfig())
    y, features = jax.jit(encoder.apply)({"params": reference_weights.encoder()}, nhwc(data["x"]))
    a1, a2 = blurred(features)
    for dtype in ("", "_f64"):
        np.testing.assert_allclose(nchw(y), data[f"enc_y{dtype}"], **NEAR)
        np.testing.assert_allclose(a1[:, ::2, ::2], data[f"A1_gaussian_slice{dtype}"], **NEAR)
        np.testing.assert_allclose(a2, data[f"A2_gaussian_slice{dtype}"], **NEAR)


@pytest.mark.slow
def test_generator_with_legacy_fcm_equals_the_authors(golden):
    data = golden("authors_full")
    parameters = reference_weights.generator(9)
    parameters["fcm1"] = legacy_parameters("Generator.FCM1", (256, 256), 60)
    parameters["fcm2"] = legacy_parameters("Generator.FCM2", (128, 128), 120)
    generator = Generator(ModelConfig(fcm="legacy", fcm_width=64, fcm_dropout=0.5))
    y_hat = nhwc(data["y"].astype(np.float32))
    image, features = jax.jit(generator.apply)({"params": parameters}, y_hat)
    c1, c2 = blurred(features)
    # Their blurred channels are all the same, so one stands for all in our statistics.
    assert not np.any(data["C_channel_spread"])
    for found, part, key, channels in [
        (image, nchw(image)[:, :, ::5, ::5], "image", 1),
        (c1, c1[:, ::8, ::8], "C1_gaussian", 60),
        (c2, c2[:, ::4, ::4], "C2_gaussian", 120),
    ]:
        np.testing.assert_allclose(part, data[f"{key}_slice"], **NEAR)
        np.testing.assert_allclose(part, data[f"{key}_slice_f64"], **NEAR)
        expected = data[f"{key}_stats"] / [1, 1, 1, 1, channels, channels]
        np.testing.assert_allclose(statistics(found), expected, rtol=1e-4)


def random_parameters(module, b):
    """Parameters away from zero, also those that begin there."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), b)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.5, s.shape), b.dtype), shapes)


def features(*shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), dtype)


def layer(module, parameters, x):
    return module.apply({"params": parameters}, x)


def flax_conv_fcm(b, p, groups):
    x = b
    for i, (count, channels) in enumerate(zip(groups, (9, b.shape[-1]), strict=True)):
        x = nn.silu(layer(nn.GroupNorm(count, epsilon=1e-5), p[f"norm{i}"], x))
        x = layer(nn.Conv(channels, (3, 3)), p[f"conv{i}"]["Conv_0"], x)
    return x


def flax_attention_fcm(b, p, groups, heads):
    channels, normalize = b.shape[-1], nn.LayerNorm(epsilon=1e-5)
    tokens = layer(nn.GroupNorm(groups, epsilon=1e-5), p["norm_in"], b)
    tokens = tokens.reshape(len(b), -1, channels)
    shapes = {"kernel": (channels, heads, -1), "bias": (heads, -1)}
    weights = {
        name: {part: p[name][part].reshape(shape) for part, shape in shapes.items()}
        for name in ("query", "key", "value")
    }
    out = p["out"] | {"kernel": p["out"]["kernel"].reshape(heads, -1, channels)}
    answers = layer(nn.MultiHeadDotProductAttention(heads), weights | {"out": out}, tokens)
    x = layer(normalize, p["norm0"], tokens + answers)
    hidden = nn.relu(layer(nn.Dense(9), p["dense0"], x))
    x = x + layer(nn.Dense(channels), p["dense1"], hidden)
    return layer(normalize, p["norm1"], x).reshape(b.shape)


@pytest.mark.parametrize(("kind", "level"), MODULES[1:])
def test_kinds_of_favae_are_their_layers_in_flax(x64, kind, level):
    b = features(2, 5, 7, 40, dtype=jnp.float64)
    module = frequency_complement(kind, level, 9, dtype=FLOAT64)
    p = random_parameters(module, b)
    c, after = jax.jit(module.apply)({"params": p}, b)
    # Of 40 channels 20 groups: the most that divide them, up to 32; of 9, nine; and 8 heads.
    with jax.numpy_dtype_promotion("standard"):  # Flax's norms have constants of float32.
        if (kind, level) == ("attention", 2):
            expected = flax_attention_fcm(b, p, 20, 8)
        else:
            expected = flax_conv_fcm(b, p, (20, 9))
    replaces = kind == "residual" or (kind, level) == ("attention", 1)
    np.testing.assert_allclose(c, b + expected if replaces else expected, rtol=0, atol=1e-11)
    np.testing.assert_allclose(after, b + expected, rtol=0, atol=1e-11)


def test_legacy_kind_alone_is_tied_to_a_size_which_it_names():
    """A fault of the authors' norm over height and width that the default kind does not have."""
    built, narrow = features(1, 12, 16, 6), features(1, 12, 5, 6)
    module, legacy = (frequency_complement(kind, 2, 4) for kind in ("hific", "legacy"))
    c, after = module.apply({"params": random_parameters(module, built)}, narrow)
    assert c.shape == after.shape == narrow.shape and np.isfinite(after).all()
    with pytest.raises(UserError, match="takes features of 12 x 16, not 12 x 5: give images of 25"):
        legacy.apply({"params": random_parameters(legacy, built)}, narrow)
    with pytest.raises(UserError, match="^data.crop is 64: .* takes images of 256 x 256 alone"):
        tiny_settings(model__fcm="legacy")


@pytest.fixture(scope="module", params=[*MODULES, ("legacy", 1)], ids=lambda m: f"{m[0]}{m[1]}")
def case(request):
    """(kind, level, module with dropout, its compiled function, random parameters, features)."""
    b = features(2, 9, 8, 6)
    module = frequency_complement(*request.param, 4, dropout=0.5)
    parameters = {"params": random_parameters(module, b)}
    return *request.param, module, jax.jit(module.apply), parameters, b


def test_all_kinds_but_the_legacy_one_begin_as_the_identity(case):
    kind, level, module, apply, _, b = case
    c, after = apply(jax.jit(module.init)(jax.random.key(0), b), b)
    assert bool(jnp.all(after == b)) == (kind != "legacy")
    assert bool(jnp.all(c == 0)) == ((kind, level) in [("hific", 1), ("conv", 1), ("attention", 2)])


def test_only_local_kinds_see_no_further_than_their_convolutions(case):
    kind, _, _, apply, parameters, b = case
    # All channels of one pixel, unevenly: the norm would take out an even change.
    perturbed = b.at[0, 4, 4].multiply(-2.0)
    differs = apply(parameters, b)[0] != apply(parameters, perturbed)[0]
    changed = np.argwhere(np.any(differs, axis=(0, 3)))
    expected = [[1, 1], [7, 7]] if kind in LOCAL_KINDS else [[0, 0], [8, 7]]
    np.testing.assert_array_equal([changed.min(0), changed.max(0)], expected)


def test_what_lies_beyond_the_true_size_is_not_seen(case):
    kind, _, _, apply, parameters, whole = case
    if kind == "legacy":
        pytest.skip("it takes one size alone")
    part = apply(parameters, whole[:, :6, :5])
    masked = apply(parameters, whole, (jnp.asarray(6), jnp.asarray(5)))
    for found, expected in zip(masked, part, strict=True):
        np.testing.assert_allclose(found[:, :6, :5], expected, rtol=0, atol=2e-5)


def test_dropout_is_on_in_training_other_for_each_key_and_off_in_evaluation(case):
    """Dropout at evaluation is a fault that a stateful network can have; ours needs a key."""
    kind, level, _, apply, parameters, b = case
    evaluated = apply(parameters, b)[1]
    without = frequency_complement(kind, level, 4, dropout=0.0)
    np.testing.assert_array_equal(evaluated, jax.jit(without.apply)(parameters, b)[1])
    keys = [jax.random.split(jax.random.key(i), len(b)) for i in (0, 0, 1)]
    one, again, other = (apply(parameters, b, keys=each)[1] for each in keys)
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1 and np.abs(one - evaluated).max() > 0.1


def test_attention_taken_a_few_queries_at_a_time_is_the_same(monkeypatch):
    b, module = features(2, 5, 7, 6), frequency_complement("attention", 2, 4)
    parameters = random_parameters(module, b)

    def energy(p):
        return jnp.sum(jnp.square(module.apply({"params": p}, b)[0]))

    once = jax.jit(jax.value_and_grad(energy))(parameters)
    monkeypatch.setattr(attention, "_SCORES", 2 * 6 * 35 * 8)  # of 35 queries 8 at a time
    few = jax.jit(jax.value_and_grad(energy))(parameters)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), few, once)


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    x = jnp.ones((100, 1000))
    dropped = drop(x, 0.2, jax.random.split(jax.random.key(0), len(x)))
    assert set(np.unique(dropped)) == {0.0, 1.25}
    np.testing.assert_allclose(np.mean(dropped), 1.0, atol=5 * 0.5 / np.sqrt(x.size))
