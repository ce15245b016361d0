"""FCMs: the authors' numbers, each kind by its formula, sizes, dropout, and how they begin."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_weights
from tiny_settings import tiny_config, tiny_settings

from fa_hific_jax import settings as settings_lib
from fa_hific_jax.errors import UserError
from fa_hific_jax.fidelity.legacy_blur import legacy_gaussian_blur
from fa_hific_jax.models.autoencoder import Autoencoder, init_parameters
from fa_hific_jax.models.encoder import Encoder
from fa_hific_jax.models.fcm import LOCAL_KINDS, attention, frequency_complement
from fa_hific_jax.models.fcm.dropout import drop
from fa_hific_jax.models.generator import Generator
from fa_hific_jax.settings.model import FCM_KINDS

# Every module there is; the attention kind is the residual one at level 1.
MODULES = [("hific", 1), ("conv", 1), ("residual", 1), ("attention", 1), ("attention", 2)]
# Measured against the reference: 2e-6 to 3e-6 for values up to 6, 3e-5 for blurred ones up to 46.
NEAR = {"rtol": 1e-4, "atol": 1e-4}


def statistics(x):
    """What the reference keeps of a tensor."""
    x = np.asarray(x, np.float64)
    return [x.mean(), x.std(), x.min(), x.max(), np.abs(x).sum(), np.square(x).sum()]


def nchw(x):
    return np.moveaxis(np.asarray(x), -1, 1)


def legacy_parameters(name, shape, widths):
    tree = {}
    for layer, (inputs, outputs) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        norm, conv = f"{name}.{4 * layer}", f"{name}.{4 * layer + 3}"
        tree[f"norm{layer}"] = {
            "scale": reference_weights.gain(f"{norm}.weight", shape),
            "bias": reference_weights.offset(f"{norm}.bias", shape),
        }
        tree[f"conv{layer}"] = {"Conv_0": reference_weights.convolution(conv, inputs, outputs, 3)}
    return tree


def authors_parameters(level):
    side, width = (256, 60) if level == 1 else (128, 120)
    return legacy_parameters(f"Generator.FCM{level}", (side, side), (width, 64, 64, width))


def test_every_layer_of_the_legacy_kind_equals_the_authors(golden):
    data = golden("authors_fcm")
    x = reference_weights.nhwc(data["small_x"])
    parameters = legacy_parameters("FCM2small", x.shape[1:3], (120, 64, 64, 120))
    apply = functools.partial(
        frequency_complement("legacy", 2, 64, dropout=0.5).apply,
        capture_intermediates=True,
        mutable=["intermediates"],
    )
    (c, after), seen = jax.jit(apply)({"params": parameters}, x)
    np.testing.assert_allclose(nchw(c), data["small_out"], **NEAR)
    np.testing.assert_allclose(after, x + c, rtol=0, atol=0)
    for number, layer in [(0, "norm0"), (3, "conv0"), (4, "norm1"), (7, "conv1"), (8, "norm2")]:
        found = nchw(seen["intermediates"][layer]["__call__"][0])[:, ::16]
        np.testing.assert_allclose(found, data[f"small_after_layer{number}_slice"], **NEAR)


def test_legacy_kind_and_its_gradients_equal_the_authors_in_float64(golden, x64):
    data = golden("authors_fcm")
    x, weights = (nchw_to_float64(data[key]) for key in ("small_x", "small_w"))
    parameters = in_float64(legacy_parameters("FCM2small", x.shape[1:3], (120, 64, 64, 120)))
    module = frequency_complement("legacy", 2, 64, dtype=jnp.dtype("float64"))

    def loss(p, x):
        c, _ = module.apply({"params": p}, x)
        return jnp.sum(c * weights), c

    (dp, dx), c = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(parameters, x)
    for found, key in [
        (nchw(c)[:, ::4], "small_out_f64"),
        (nchw(dx)[:, ::8], "small_grad_x_f64"),
        (dp["norm0"]["scale"], "small_grad_ln0_weight_f64"),
    ]:
        atol = 1e-10 * np.abs(data[key]).max()
        np.testing.assert_allclose(found, data[key], rtol=0, atol=atol, err_msg=key)


def nchw_to_float64(x):
    return jnp.asarray(np.moveaxis(x, 1, -1), jnp.float64)


def in_float64(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


@pytest.mark.parametrize("level", [1, 2])
def test_legacy_kind_equals_the_authors_at_full_size(golden, level):
    data = golden("authors_fcm")
    given = {key[5:]: data[key] for key in data if key.startswith(f"FCM{level}_")}
    x = reference_weights.draw(f"input:fcm:FCM{level}", tuple(given.pop("input_shape").tolist()))
    np.testing.assert_array_equal(x[:, :3, :4, :4], given.pop("input_corner"))
    module = frequency_complement("legacy", level, 64)
    variables = {"params": authors_parameters(level)}
    c = nchw(jax.jit(module.apply)(variables, reference_weights.nhwc(x))[0])
    for dtype in ("", "_f64"):
        corner, slices = given.pop(f"out_corner{dtype}"), given.pop(f"out_slice{dtype}")
        np.testing.assert_allclose(c[:, :4, :8, :8], corner, **NEAR)
        np.testing.assert_allclose(c[:, ::7, ::16, ::16], slices, **NEAR)
    np.testing.assert_allclose(statistics(c), given.pop("out_stats"), rtol=1e-5)
    assert not given


def test_blurred_features_of_the_encoder_equal_the_authors(golden):
    data = golden("authors_full")
    encoder = Encoder((60, 120, 240, 480, 960), 220, "pytorch")
    variables = {"params": reference_weights.encoder()}
    y, (a1, a2) = jax.jit(encoder.apply)(variables, reference_weights.nhwc(data["x"]))
    sigma = jnp.asarray(3.0)
    blurred1, blurred2 = (np.asarray(legacy_gaussian_blur(a, sigma, 9))[..., 0] for a in (a1, a2))
    for dtype in ("", "_f64"):
        np.testing.assert_allclose(nchw(y), data[f"enc_y{dtype}"], **NEAR)
        for found, key in [(blurred1[:, ::2, ::2], "A1"), (blurred2, "A2")]:
            np.testing.assert_allclose(found, data[f"{key}_gaussian_slice{dtype}"], **NEAR)


@pytest.mark.slow
def test_generator_with_legacy_fcm_equals_the_authors(golden):
    data = golden("authors_full")
    parameters = reference_weights.generator(9)
    parameters |= {f"fcm{level}": authors_parameters(level) for level in (1, 2)}
    generator = Generator((960, 480, 240, 120, 60), 9, "pytorch", fcm=("legacy", 64, 0.5))
    y_hat = reference_weights.nhwc(data["y"].astype(np.float32))
    image, (c1, c2) = jax.jit(generator.apply)({"params": parameters}, y_hat)
    sigma = jnp.asarray(3.0)
    blurred1, blurred2 = (np.asarray(legacy_gaussian_blur(c, sigma, 9))[..., 0] for c in (c1, c2))
    for dtype in ("", "_f64"):
        for found, key in [
            (nchw(image)[:, :, ::5, ::5], "image"),
            (blurred1[:, ::8, ::8], "C1_gaussian"),
            (blurred2[:, ::4, ::4], "C2_gaussian"),
        ]:
            np.testing.assert_allclose(found, data[f"{key}_slice{dtype}"], **NEAR)
    # Their blurred channels are all the same, so one stands for all in our statistics.
    assert not np.any(data["C_channel_spread"])
    for found, key, channels in [
        (image, "image", 1),
        (blurred1, "C1_gaussian", 60),
        (blurred2, "C2_gaussian", 120),
    ]:
        expected = data[f"{key}_stats"] / [1, 1, 1, 1, channels, channels]
        np.testing.assert_allclose(statistics(found), expected, rtol=1e-4)


def random_parameters(module, b, seed=0):
    """Of every parameter something, also of those that begin at zero."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), b)["params"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.5, s.shape), b.dtype), shapes)


def features(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def numpy_normal(x, axes, p, shape):
    normal = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    return normal.reshape(shape) * p["scale"] + p["bias"]


def numpy_group_norm(x, p, groups):
    grouped = x.reshape(*x.shape[:3], groups, -1)
    return numpy_normal(grouped, (1, 2, 4), p, x.shape)


def numpy_conv(x, p):
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    kernel = p["Conv_0"]["kernel"]
    return np.einsum("bhwcij,ijcd->bhwd", windows, kernel) + p["Conv_0"]["bias"]


def silu(x):
    return x / (1 + np.exp(-x))


def numpy_conv_fcm(b, p, groups):
    x = numpy_conv(silu(numpy_group_norm(b, p["norm0"], groups[0])), p["conv0"])
    return numpy_conv(silu(numpy_group_norm(x, p["norm1"], groups[1])), p["conv1"])


def numpy_attention_fcm(b, p, groups, heads):
    def dense(x, name):
        return x @ p[name]["kernel"] + p[name]["bias"]

    tokens = numpy_group_norm(b, p["norm_in"], groups).reshape(len(b), -1, b.shape[-1])
    q, k, v = (
        np.stack(np.split(dense(tokens, name), heads, axis=-1))
        for name in ("query", "key", "value")
    )
    scores = np.exp(q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]))
    answers = scores / scores.sum(-1, keepdims=True) @ v
    x = tokens + dense(np.concatenate(list(answers), axis=-1), "out")
    x = numpy_normal(x, -1, p["norm0"], x.shape)
    x = x + dense(np.maximum(dense(x, "dense0"), 0), "dense1")
    return numpy_normal(x, -1, p["norm1"], x.shape).reshape(b.shape)


@pytest.mark.parametrize(("height", "width"), [(5, 7), (8, 6)])
@pytest.mark.parametrize(("kind", "level"), MODULES[1:])
def test_kinds_of_favae_follow_their_formulas_at_any_size(x64, kind, level, height, width):
    b = jnp.asarray(features(2, height, width, 40), jnp.float64)
    module = frequency_complement(kind, level, 9, dtype=jnp.dtype("float64"))
    p = random_parameters(module, b)
    c, after = jax.jit(module.apply)({"params": p}, b)
    p, b = jax.tree.map(np.asarray, (p, b))
    # Of 40 channels 20 groups: the most that divide them, up to 32; of 9, nine; and 8 heads.
    if (kind, level) == ("attention", 2):
        expected = numpy_attention_fcm(b, p, 20, 8)
    else:
        expected = numpy_conv_fcm(b, p, (20, 9))
    replaces = kind == "residual" or (kind, level) == ("attention", 1)
    np.testing.assert_allclose(c, b + expected if replaces else expected, rtol=0, atol=1e-11)
    np.testing.assert_allclose(after, b + expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("height", "width"), [(9, 5), (64, 3), (1, 1)])
def test_default_kind_is_not_tied_to_a_size(height, width):
    """A fault of the authors' norm over height and width that ours does not have."""
    b = features(1, height, width, 6)
    module = frequency_complement("hific", 1, 4)
    parameters = random_parameters(module, features(1, 8, 8, 6))
    c, after = jax.jit(module.apply)({"params": parameters}, b)
    assert c.shape == after.shape == b.shape and np.isfinite(after).all()


def test_legacy_kind_names_the_size_that_it_takes():
    module = frequency_complement("legacy", 2, 4)
    parameters = random_parameters(module, features(1, 12, 16, 6))
    assert parameters["norm1"]["scale"].shape == parameters["norm1"]["bias"].shape == (12, 16)
    sentence = r"takes features of 12 x 16, not 12 x 17: give images of 256 x 256 pixels or choose"
    with pytest.raises(UserError, match=sentence):
        module.apply({"params": parameters}, features(1, 12, 17, 6))


def test_legacy_parameters_are_those_of_256_pixels():
    model = tiny_settings(model__fcm="legacy", data__crop=256).model
    shapes = jax.eval_shape(functools.partial(init_parameters, model), jax.random.key(0))
    for level, side in [(1, 256), (2, 128)]:
        module = shapes["generator"][f"fcm{level}"]
        assert set(module) == {f"{part}{i}" for part in ("norm", "conv") for i in range(3)}
        assert module["norm2"]["scale"].shape == (side, side)


@pytest.mark.parametrize(("kind", "level"), [*MODULES, ("legacy", 1)])
def test_all_kinds_but_the_legacy_one_begin_as_the_identity(kind, level):
    b = features(1, 6, 5, 8)
    module = frequency_complement(kind, level, 4)
    c, after = jax.jit(lambda key: module.apply(module.init(key, b), b))(jax.random.key(0))
    assert bool(jnp.all(after == b)) == (kind != "legacy")
    assert bool(jnp.all(c == 0)) == ((kind, level) in [("hific", 1), ("conv", 1), ("attention", 2)])


@pytest.mark.parametrize(("kind", "level"), [*MODULES, ("legacy", 1)])
def test_only_local_kinds_see_no_further_than_their_convolutions(kind, level):
    module = frequency_complement(kind, level, 4)
    b = features(1, 15, 16, 6)
    parameters = random_parameters(module, b)
    # All channels of one pixel, unevenly: the norm would take out an even change.
    perturbed = b.at[0, 7, 6].multiply(-2.0)
    apply = jax.jit(lambda b: module.apply({"params": parameters}, b)[0])
    changed = np.argwhere(np.any(apply(b) != apply(perturbed), axis=(0, 3)))
    if kind in LOCAL_KINDS:
        np.testing.assert_array_equal([changed.min(0), changed.max(0)], [[4, 3], [10, 9]])
    else:
        np.testing.assert_array_equal([changed.min(0), changed.max(0)], [[0, 0], [14, 15]])


@pytest.mark.parametrize(("kind", "level"), MODULES)
def test_what_lies_beyond_the_true_size_is_not_seen(kind, level):
    module = frequency_complement(kind, level, 4)
    whole = features(2, 9, 8, 6)
    parameters = random_parameters(module, whole)
    apply = jax.jit(module.apply)
    part = apply({"params": parameters}, whole[:, :6, :5])
    masked = apply({"params": parameters}, whole, (jnp.asarray(6), jnp.asarray(5)))
    for found, expected in zip(masked, part, strict=True):
        np.testing.assert_allclose(found[:, :6, :5], expected, rtol=0, atol=2e-5)


def test_attention_taken_a_few_queries_at_a_time_is_the_same(monkeypatch):
    b = features(2, 5, 7, 6)
    module = frequency_complement("attention", 2, 4)
    parameters = random_parameters(module, b)

    def energy(p):
        return jnp.sum(jnp.square(module.apply({"params": p}, b)[0]))

    value, grads = jax.jit(jax.value_and_grad(energy))(parameters)
    monkeypatch.setattr(attention, "_SCORES", 2 * 6 * 35 * 8)  # of 35 queries 8 at a time
    few_value, few_grads = jax.jit(jax.value_and_grad(energy))(parameters)
    np.testing.assert_allclose(few_value, value, rtol=1e-5)
    for few, one in zip(jax.tree.leaves(few_grads), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(few, one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "level"), [*MODULES, ("legacy", 1)])
def test_dropout_is_on_in_training_other_for_each_key_and_off_in_evaluation(kind, level):
    """Dropout at evaluation is a fault that a stateful network can have; ours needs a key."""
    b = features(1, 8, 9, 6)
    with_dropout, without = (frequency_complement(kind, level, 4, rate) for rate in (0.5, 0.0))
    parameters = {"params": random_parameters(without, b)}
    apply, plain = jax.jit(with_dropout.apply), jax.jit(without.apply)
    evaluated = plain(parameters, b)[1]
    np.testing.assert_array_equal(apply(parameters, b)[1], evaluated)
    one, again, other = (apply(parameters, b, key=jax.random.key(i))[1] for i in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1 and np.abs(one - evaluated).max() > 0.1


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    x = jnp.ones((100, 1000))
    dropped = drop(x, 0.2, jax.random.key(0))
    assert set(np.unique(dropped)) == {0.0, 1.25}
    np.testing.assert_allclose(np.mean(dropped), 1.0, atol=5 * 0.5 / np.sqrt(x.size))


def test_dropout_leaves_the_noise_of_latents_alone():
    x = jnp.asarray(np.random.default_rng(0).random((1, 64, 64, 3)), jnp.float32)
    models = [tiny_settings(model__fcm_dropout=rate).model for rate in (0.0, 0.5)]
    shapes = jax.eval_shape(functools.partial(init_parameters, models[0]), jax.random.key(0))
    rng = np.random.default_rng(0)
    parameters = jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.3, s.shape), s.dtype), shapes)

    @jax.jit
    def outputs(key):
        variables = {"params": parameters}
        calls = [(models[0], key), (models[1], key), (models[1], None), (models[0], None)]
        return [Autoencoder(model).apply(variables, x, k) for model, k in calls]

    plain, dropped, evaluated, expected = outputs(jax.random.key(0))
    for found, reference in [(dropped, plain), (evaluated, expected)]:
        jax.tree.map(np.testing.assert_array_equal, found.rates, reference.rates)
        np.testing.assert_array_equal(found.y_hat, reference.y_hat)
    np.testing.assert_array_equal(evaluated.x_hat, expected.x_hat)
    assert np.abs(dropped.x_hat - plain.x_hat).max() > 0.01
    other = outputs(jax.random.key(1))[1]
    assert np.abs(other.fcm_features[0] - dropped.fcm_features[0]).max() > 0.01


@pytest.mark.parametrize("kind", FCM_KINDS)
def test_generator_has_the_modules_that_are_configured(kind):
    generator = Generator((8, 8, 8, 8, 6), 0, "pytorch", fcm=(kind, 4, 0.0))
    y_hat = features(1, 2, 3, 5)
    shapes = jax.eval_shape(generator.init, jax.random.key(0), y_hat)["params"]
    for level, channels in [(1, 6), (2, 8)]:
        b = jnp.zeros((1, 32 // level, 48 // level, channels))
        alone = frequency_complement(kind, level, 4)
        expected = jax.eval_shape(alone.init, jax.random.key(0), b)["params"]
        assert shapes[f"fcm{level}"] == expected
    image, cs = jax.eval_shape(generator.apply, {"params": shapes}, y_hat)
    assert image.shape == (1, 32, 48, 3)
    assert [c.shape for c in cs] == [(1, 32, 48, 6), (1, 16, 24, 8)]


def test_bfloat16_stays_close():
    b = features(1, 8, 8, 8)
    for kind, level in [*MODULES, ("legacy", 1)]:
        wide, narrow = (
            frequency_complement(kind, level, 4, dtype=jnp.dtype(d))
            for d in ("float32", "bfloat16")
        )
        parameters = {"params": random_parameters(wide, b)}
        expected = jax.jit(wide.apply)(parameters, b)[1]
        found = jax.jit(narrow.apply)(parameters, b.astype(jnp.bfloat16))[1]
        assert found.dtype == jnp.bfloat16
        error = jnp.abs(found.astype(jnp.float32) - expected)
        assert jnp.max(error) < 0.05 * jnp.max(jnp.abs(expected)), (kind, level)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"model__fcm": "fcm"}, "^model.fcm is 'fcm': choose one of hific, conv, residual, atten"),
        ({"model__fcm_dropout": 1.0}, "^model.fcm_dropout is 1.0: it must be at least 0 and below"),
        (
            {"model__fcm": "legacy"},
            "^data.crop is 64 but model.fcm is 'legacy', which takes images of 256 x 256 alone",
        ),
    ],
)
def test_settings_that_make_no_sense_are_named(overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        settings_lib.from_mapping(tiny_config(**overrides).to_dict())
