"""`convolve`, Winograd's way included, against XLA: values, gradients, transformations, devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_hific_jax.models import convolution, winograd
from fa_hific_jax.models.convolution import convolve
from fa_hific_jax.training import sharding

# Kernel, stride, channels in and out: every kind of layer, on both sides of each choice.
LAYERS = {
    "first": (7, 1, 3, 16),
    "last": (7, 1, 16, 3),
    "narrow": (3, 1, 8, 8),
    "wide": (3, 1, 16, 20),
    "down": (3, 2, 8, 16),
    "down_wide": (3, 2, 16, 17),
    "hyper": (5, 2, 20, 20),
    "hyper_narrow": (5, 2, 4, 4),
    "discriminator": (4, 2, 15, 16),
    "discriminator_wide": (4, 2, 16, 32),
    "discriminator_last": (4, 1, 32, 1),
    "logits": (1, 1, 32, 1),
    "winograd": (3, 1, 128, 130),
    "winograd_2x2": (2, 1, 7, 5),
}
SIZE, LARGE = (2, 15, 20), (1, 33, 31)


def xla(x, kernel, stride: int = 1):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def operands(layer: str, size=SIZE, dtype=jnp.float32):
    side, stride, channels, features = LAYERS[layer]
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(*size, channels)), dtype)
    kernel = jnp.asarray(rng.normal(size=(side, side, channels, features)), dtype)
    return x, kernel, stride


@functools.partial(jax.jit, static_argnums=(0, 3))
def value_and_gradients(function, x, kernel, stride):
    """The output, and the gradients of sum(output * w) for a w that differs everywhere."""
    y, pull_back = jax.vjp(lambda x, kernel: function(x, kernel, stride), x, kernel)
    return y, *pull_back(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))


def assert_near(found, expected, tolerance: float):
    """Equal shapes and types, and values to a part of the largest."""
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        scale = float(jnp.max(jnp.abs(theirs)))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale)


def check(x, kernel, stride, tolerance):
    found, expected = (value_and_gradients(f, x, kernel, stride) for f in (convolve, xla))
    assert_near(found, expected, tolerance)


@pytest.mark.parametrize(
    ("layer", "size"),
    [(layer, SIZE) for layer in LAYERS if "winograd" not in layer]
    + [(layer, (1, 7, 7)) for layer in ("first", "down", "discriminator")]
    + [(layer, (3, 8, 9)) for layer in ("first", "down", "discriminator")],
)
def test_values_and_gradients_are_those_of_xla_in_float64(layer, size, x64):
    check(*operands(layer, size, jnp.float64), 1e-14)


@pytest.mark.parametrize("layer", ["last", "wide", "discriminator", "winograd"])
def test_values_and_gradients_are_those_of_xla_in_float32(layer):
    winograds = layer == "winograd"
    check(*operands(layer, LARGE if winograds else SIZE), 1e-5 if winograds else 2e-6)


@pytest.mark.parametrize("layer", ["last", "wide", "down_wide", "hyper", "discriminator"])
def test_more_positions_than_are_worth_one_product(layer, x64, monkeypatch):
    """Convolutions with a row more, products for each row of the kernel, and bands of patches."""
    monkeypatch.setattr(convolution, "_FEW_POSITIONS", 0)
    monkeypatch.setattr(convolution, "_CACHED", 2**13)
    monkeypatch.setattr(convolution, "_MANY_VALUES", 0)
    check(*operands(layer, (2, 23, 20), jnp.float64), 1e-14)


# The result is rounded once, to 8 bits.
@pytest.mark.parametrize("layer", ["first", "wide"])
def test_bfloat16_accumulates_in_float32(layer):
    x, kernel, stride = operands(layer, dtype=jnp.bfloat16)
    found = jax.jit(convolve, static_argnums=2)(x, kernel, stride)
    expected = xla(x.astype(jnp.float32), kernel.astype(jnp.float32), stride)
    assert found.dtype == jnp.bfloat16
    error = jnp.abs(found.astype(jnp.float32) - expected)
    assert float(jnp.max(error / (jnp.abs(expected) + 1e-2))) < 2**-8 * 1.01


@pytest.mark.parametrize(
    ("layer", "size", "dtype", "tolerance"),
    [
        ("last", (1, 9, 9), "float64", 1e-13),
        ("down", (1, 9, 9), "float64", 1e-13),
        ("winograd", LARGE, "float32", 3e-5),
    ],
)
def test_vmap_and_derivatives_forwards_and_second_ones(layer, size, dtype, tolerance, request):
    if dtype == "float64":
        request.getfixturevalue("x64")
    x, kernel, stride = operands(layer, size, dtype)

    @functools.partial(jax.jit, static_argnums=0)
    def results(function, x, kernel):
        """Each image under its own kernel; curvatures along x, backwards twice and forwards."""
        each = jax.vmap(lambda x, kernel: function(x, kernel, stride))
        gradient = jax.grad(lambda x: jnp.sum(jnp.square(function(x, kernel, stride))))
        backwards = jax.grad(lambda x: jnp.sum(gradient(x)))(x)
        stacked = each(jnp.stack([x, x]), jnp.stack([kernel, 2 * kernel]))
        return stacked, backwards, jax.jvp(gradient, (x,), (x,))[1]

    assert_near(results(convolve, x, kernel), results(xla, x, kernel), tolerance)


@pytest.mark.parametrize("layer", ["last", "discriminator", "wide"])
def test_each_device_convolves_its_own_images(layer):
    x, kernel, stride = operands(layer, (4, 16, 16))
    mesh = sharding.data_mesh()
    whole, split = sharding.replicated(mesh), sharding.split(mesh)
    step = jax.jit(
        lambda x, kernel: value_and_gradients(convolve, x, kernel, stride),
        in_shardings=(split, whole),
        out_shardings=(split, split, whole),
    )
    text = step.lower(x, kernel).compile().as_text()
    # The kernel's gradient is added over the devices; nothing else may travel.
    assert "all-reduce" in text
    for transfer in ("all-gather", "all-to-all", "collective-permute"):
        assert transfer not in text, transfer
    assert_near(step(x, kernel), value_and_gradients(xla, x, kernel, stride), 2e-6)


@pytest.mark.skipif(
    jax.__version_info__ < (0, 6), reason="writes down both, and a constant by which XLA chooses"
)
@pytest.mark.parametrize("layer", ["last", "down", "wide"])
def test_accelerators_get_the_plain_convolution_alone(layer):
    x, kernel, stride = operands(layer)
    traced = jax.jit(functools.partial(convolve, stride=stride)).trace(x, kernel)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("stablehlo.convolution") == 1
    assert "stablehlo.transpose" not in text and "stablehlo.pad" not in text


@pytest.mark.parametrize("side", [2, 3])
def test_winograds_matrices_filter_one_dimension_exactly(side):
    b, g, a = winograd.matrices(side)
    d, taps = np.random.default_rng(0).normal(size=len(b)), np.arange(1.0, side + 1)
    np.testing.assert_allclose(a @ ((g @ taps) * (b @ d)), np.correlate(d, taps), atol=1e-13)


@pytest.mark.parametrize("cached", [None, 36 * 2 * 4 * 8 * 2])  # two rows of four tiles
@pytest.mark.parametrize("size", [(2, 3, 3), (1, 9, 14), (2, 23, 18)])
@pytest.mark.parametrize("layer", ["narrow", "winograd_2x2"])
def test_winograd_at_any_size_and_in_bands_gives_the_values_of_xla(
    layer, size, cached, x64, monkeypatch
):
    if cached:
        monkeypatch.setattr(winograd, "_CACHED", cached)
    x, kernel, _ = operands(layer, size, jnp.float64)
    assert_near(jax.jit(winograd.convolve)(x, kernel), xla(x, kernel), 1e-12)


def test_wide_convolutions_go_winograds_way_in_float32_alone():
    def products(x, kernel):  # at 36 points
        return str(jax.make_jaxpr(convolve)(x, kernel)).count("[36,")

    x, kernel, _ = operands("winograd", LARGE)
    assert products(x, kernel)
    assert not products(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    assert not products(x[..., :63], kernel[..., :63, :])
    assert not products(x[:, :20, :20], kernel)
