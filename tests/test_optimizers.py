"""Learning rates, and Muon: closed forms of a step, and which parameters it takes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_settings import tiny_settings

from fa_hific_jax.training.optimizers import ADAMS_RMS, learning_rate, matrices, muon, optimizers
from fa_hific_jax.training.state import create
from fa_hific_jax.training.trainable import by_name

pytestmark = pytest.mark.usefixtures("standard_promotion")

RATE = 0.01


def step_of(params, gradients):
    optimizer = muon(lambda step: RATE)
    return optimizer.update(gradients, optimizer.init(params), params)[0]


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (21, 0.5), (99, 0.25)]
)
def test_learning_rate_rises_linearly_and_drops_at_its_steps(step, expected):
    config = tiny_settings().optimizer
    config = dataclasses.replace(config, warmup_steps=10, drop_steps=(20, 40), drop_factor=0.5)
    np.testing.assert_allclose(learning_rate(1.0, config)(step), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, 3, 8, 16), (1, 1, 16, 8), (3, 3, 2, 40)])
def test_a_step_has_the_gradients_singular_vectors_and_nearly_equal_values(shape):
    gradient = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    step = step_of({"kernel": jnp.zeros(shape)}, {"kernel": jnp.asarray(gradient)})["kernel"]
    u, _, vt = np.linalg.svd(gradient.reshape(-1, shape[-1]), full_matrices=False)
    rotated = -u.T @ np.asarray(step).reshape(-1, shape[-1]) @ vt.T
    values = np.diag(rotated) / (RATE * ADAMS_RMS * np.sqrt(max(u.shape[0], vt.shape[1])))
    np.testing.assert_allclose(rotated, np.diag(np.diag(rotated)), atol=1e-6)
    assert np.all((values > 0.6) & (values < 1.3))


def test_the_length_of_the_gradient_does_not_matter():
    shape = (3, 3, 4, 8)
    gradient = jax.random.normal(jax.random.key(0), shape)
    one, other = (
        step_of({"kernel": jnp.zeros(shape)}, {"kernel": factor * gradient})["kernel"]
        for factor in (1.0, 1e-3)
    )
    np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-7)


def test_biases_and_the_convolution_that_makes_the_image_have_adam():
    params = {"bias": jnp.zeros(5), "conv_out": jnp.zeros((7, 7, 16, 3))}
    gradients = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(1), leaf.shape), params)
    nadam = optax.nadam(RATE)
    expected = nadam.update(gradients, nadam.init(params))[0]
    jax.tree.map(
        lambda step, adams: np.testing.assert_allclose(step, adams, rtol=1e-5),
        step_of(params, gradients),
        expected,
    )


def test_it_has_the_models_kernels_and_nothing_else():
    settings = tiny_settings(optimizer__kind="muon")
    params = jax.eval_shape(lambda: create(settings, jax.random.key(0))).params["autoencoder"]
    kernels = {name for name, leaf in by_name(params).items() if leaf.ndim == 4}
    taken = {name for name, axes in by_name(matrices(params)).items() if axes is not None}
    assert kernels - taken == {"generator/conv_out/Conv_0/kernel"} and taken < kernels


def test_a_frozen_parameter_stays_without_state():
    params = {"kernel": jnp.zeros((3, 3, 4, 8)), "frozen": None}
    settings = tiny_settings(optimizer__kind="muon").optimizer
    optimizer = optimizers(settings)[0]
    gradients = {"kernel": jnp.ones((3, 3, 4, 8)), "frozen": None}
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    assert updates["frozen"] is None
    assert float(jnp.max(jnp.abs(updates["kernel"]))) > 0
