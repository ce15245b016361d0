"""`convolve` against XLA's own convolution: values, gradients, transformations, placement."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_hific_jax.models import convolution
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
}


def xla(x, kernel, stride: int):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def operands(layer: str, size=(2, 15, 20), dtype=jnp.float32):
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


def check(x, kernel, stride, tolerance):
    found = value_and_gradients(convolve, x, kernel, stride)
    expected = value_and_gradients(xla, x, kernel, stride)
    for name, ours, theirs in zip(("y", "dx", "dkernel"), found, expected, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype, name
        ours, theirs = (np.asarray(array, np.float64) for array in (ours, theirs))
        assert np.max(np.abs(ours - theirs)) < tolerance * np.max(np.abs(theirs)), name


@pytest.mark.parametrize("layer", LAYERS)
def test_values_and_gradients_are_those_of_xla_in_float64(layer, x64):
    check(*operands(layer, dtype=jnp.float64), 1e-14)


@pytest.mark.parametrize("layer", ["last", "wide", "discriminator"])
def test_values_and_gradients_are_those_of_xla_in_float32(layer):
    check(*operands(layer), 2e-6)


@pytest.mark.parametrize("size", [(1, 7, 7), (3, 8, 9)])
@pytest.mark.parametrize("layer", ["first", "down", "discriminator"])
def test_sizes_of_any_parity_down_to_one_window(layer, size, x64):
    check(*operands(layer, size, jnp.float64), 1e-14)


@pytest.mark.parametrize("layer", ["last", "wide", "down_wide", "hyper", "discriminator"])
def test_more_positions_than_are_worth_one_product(layer, x64, monkeypatch):
    """Convolutions with a row more, products for each row of the kernel, and bands of patches."""
    monkeypatch.setattr(convolution, "_FEW_POSITIONS", 0)
    monkeypatch.setattr(convolution, "_CACHED", 2**13)
    monkeypatch.setattr(convolution, "_MANY_VALUES", 0)
    check(*operands(layer, (2, 23, 20), jnp.float64), 1e-14)


# Each is rounded once to 8 bits, and the kernel's gradient is a sum over all pixels.
@pytest.mark.parametrize("layer", ["first", "wide"])
def test_bfloat16_accumulates_in_float32(layer):
    x, kernel, stride = operands(layer, dtype=jnp.bfloat16)
    found = value_and_gradients(convolve, x, kernel, stride)
    wide = (array.astype(jnp.float32) for array in (x, kernel))
    expected = jax.vjp(lambda x, kernel: xla(x, kernel, stride), *wide)
    assert found[0].dtype == jnp.bfloat16
    error = jnp.abs(found[0].astype(jnp.float32) - expected[0])
    assert float(jnp.max(error / (jnp.abs(expected[0]) + 1e-2))) < 2**-8 * 1.01


@pytest.mark.parametrize("layer", ["last", "down"])
def test_derivatives_forwards_and_second_ones_exist(layer, x64):
    x, kernel, stride = operands(layer, (1, 9, 9), jnp.float64)

    def curvature(function):
        """Of a sum of squares along x: forwards over backwards."""
        gradient = jax.grad(lambda x: jnp.sum(jnp.square(function(x, kernel, stride))))
        return jax.jit(lambda x: jax.jvp(gradient, (x,), (x,)))(x)[1]

    np.testing.assert_allclose(curvature(convolve), curvature(xla), rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("layer", ["last", "down"])
def test_vmap_over_inputs_and_kernels(layer):
    x, kernel, stride = operands(layer)
    kernels = jnp.stack([kernel, 2 * kernel])
    y = jax.jit(jax.vmap(lambda x, k: convolve(x[None], k, stride)[0]))(x, kernels)
    expected = xla(x, kernel, stride) * jnp.array([1.0, 2.0]).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-4)


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
    for found, expected in zip(
        step(x, kernel), value_and_gradients(xla, x, kernel, stride), strict=True
    ):
        scale = float(jnp.max(jnp.abs(expected)))
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * scale)


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
