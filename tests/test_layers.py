"""Layers against reference numbers, flax's own transposed convolution and closed forms."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_weights import nhwc, relative_error

from fa_hific_jax.models.layers import ChannelNorm, Upsample


def random_array(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def output_and_gradients(module, parameters, x, w):
    """The output, and the gradients of sum(output * w) by parameters and x."""
    out, pull_back = jax.vjp(lambda p, x: module.apply({"params": p}, x), parameters, x)
    return out, pull_back(w)


# Channels that differ by 0.03 around 5 lose digits with the mean: the reference is off by 1.1e-5.
@pytest.mark.parametrize("tag, tolerance", [("c7", 1e-5), ("c960", 1e-5), ("small_var", 5e-5)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_channel_norm_and_its_gradients_equal_the_reference(golden, request, tag, tolerance, dtype):
    if dtype == "float64":
        request.getfixturevalue("x64")
        tolerance = 1e-9
    data = golden("channel_norm")
    x, w = (nhwc(data[f"{tag}_{key}"], dtype) for key in "xw")
    names = ("gamma", "beta")
    parameters = {key: jnp.asarray(data[f"{tag}_{key}"].ravel(), dtype) for key in names}
    out, (grads, grad_x) = output_and_gradients(ChannelNorm(), parameters, x, w)
    assert out.dtype == dtype
    assert relative_error(out, data[f"{tag}_out_f64"].transpose(0, 2, 3, 1)) < tolerance
    assert relative_error(grad_x, data[f"{tag}_grad_x_f64"].transpose(0, 2, 3, 1)) < tolerance
    for key, grad in grads.items():
        assert relative_error(grad, data[f"{tag}_grad_{key}_f64"].ravel()) < tolerance, key


def test_channel_norm_of_one_channel_is_its_offset():
    parameters = {"gamma": jnp.array([2.0]), "beta": jnp.array([0.25])}
    out = ChannelNorm().apply({"params": parameters}, random_array(0, 1, 2, 3, 1))
    np.testing.assert_array_equal(out, np.full((1, 2, 3, 1), 0.25))


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_upsample_and_its_gradients_equal_the_transposed_convolution_of_flax(kernel):
    x, w = random_array(0, 2, 4, 5, 3), random_array(1, 2, 8, 10, 2)
    parameters = {"kernel": random_array(2, kernel, kernel, 3, 2), "bias": random_array(3, 2)}
    edges = (kernel // 2, kernel // 2 + 1)
    theirs = nn.ConvTranspose(2, (kernel, kernel), strides=(2, 2), padding=(edges, edges))
    found, expected = (
        jax.tree.leaves(output_and_gradients(module, parameters, x, w))
        for module in (Upsample(2, kernel), theirs)
    )
    for array, reference in zip(found, expected, strict=True):
        assert array.shape == reference.shape
        assert relative_error(array, np.asarray(reference)) < 1e-6


def test_upsample_begins_by_keeping_what_is_constant_and_interpolating_linearly():
    x = jnp.broadcast_to(random_array(0, 6), (1, 6, 7, 6))
    out, _ = jax.jit(Upsample(4, 5).init_with_output)(jax.random.key(0), x)
    inner = np.asarray(out)[0, 2:-2, 2:-2]
    assert np.ptp(inner, axis=(0, 1)).max() < 1e-6
    assert np.abs(inner).max() > 0.1
    x = jnp.arange(5.0).reshape(1, 1, 5, 1) * jnp.ones((1, 4, 1, 1))
    out, variables = jax.jit(Upsample(1, 3).init_with_output)(jax.random.key(0), x)
    gain = variables["params"]["kernel"][1, 1, 0, 0]
    ramp = np.broadcast_to(np.arange(9) / 2, (7, 9)) * gain
    np.testing.assert_allclose(out[0, :-1, :-1, 0], ramp, rtol=1e-6, atol=1e-6)
