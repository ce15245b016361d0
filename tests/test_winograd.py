"""Winograd's convolution against XLA's own in float64, and its place in `convolve`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_hific_jax.models import winograd
from fa_hific_jax.models.convolution import convolve

# Side of the kernel, channels in and out.
KERNELS = {"3x3": (3, 7, 5), "2x2": (2, 7, 5)}


def xla(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def operands(side, channels, outputs, size, dtype=jnp.float64):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(*size, channels)), dtype)
    return x, jnp.asarray(rng.normal(size=(side, side, channels, outputs)), dtype)


@pytest.mark.parametrize("side", [2, 3])
def test_matrices_filter_one_dimension_exactly(side):
    b, g, a = winograd.matrices(side)
    d, taps = np.random.default_rng(0).normal(size=len(b)), np.arange(1.0, side + 1)
    np.testing.assert_allclose(a @ ((g @ taps) * (b @ d)), np.correlate(d, taps), atol=1e-13)


@pytest.mark.parametrize("size", [(2, 3, 3), (1, 9, 14)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_any_size_gives_the_values_of_xla(kernel, size, x64):
    x, kernel = operands(*KERNELS[kernel], size)
    found, expected = jax.jit(winograd.convolve)(x, kernel), xla(x, kernel)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * jnp.max(jnp.abs(expected)))


def test_bands_of_a_large_image_join_without_seams(x64, monkeypatch):
    monkeypatch.setattr(winograd, "_CACHED", 36 * 2 * 4 * 7 * 2)  # two rows of four tiles
    x, kernel = operands(*KERNELS["3x3"], (2, 23, 18))
    np.testing.assert_allclose(winograd.convolve(x, kernel), xla(x, kernel), rtol=0, atol=1e-11)


@pytest.fixture(scope="module")
def wide():
    return operands(3, 128, 130, (1, 33, 31), jnp.float32)


def test_wide_convolutions_take_it_in_float32_alone(wide):
    def products(x, kernel):  # at 36 points
        return str(jax.make_jaxpr(convolve)(x, kernel)).count("[36,")

    x, kernel = wide
    assert products(x, kernel)
    assert not products(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    assert not products(x[..., :63], kernel[..., :63, :])
    assert not products(x[:, :20, :20], kernel)


def test_values_and_both_gradients_in_float32(wide):
    def both(function, x, kernel):
        y, pull_back = jax.vjp(function, x, kernel)
        return y, *pull_back(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    found = jax.jit(lambda x, kernel: both(convolve, x, kernel))(*wide)
    expected = jax.jit(lambda x, kernel: both(xla, x, kernel))(*wide)
    for ours, theirs in zip(found, expected, strict=True):
        assert float(jnp.max(jnp.abs(ours - theirs))) < 1e-5 * float(jnp.max(jnp.abs(theirs)))


def test_vmap_over_images_and_a_gradient_of_a_gradient(wide):
    x, kernel = wide
    xs = jnp.stack([x, 2 * x])
    ours, theirs = (jax.jit(jax.vmap(f, (0, None)))(xs, kernel) for f in (convolve, xla))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * float(jnp.max(jnp.abs(theirs))))

    def slope(function):
        inner = jax.grad(lambda x: jnp.sum(jnp.square(function(x, kernel))))
        return jax.jit(jax.grad(lambda x: jnp.sum(inner(x))))(x)

    ours, theirs = slope(convolve), slope(xla)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-5 * float(jnp.max(jnp.abs(theirs))))
