"""Probabilities of latents: the reference's values and gradients, sums of one, far tails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from fa_hific_jax.entropy.factorized import FactorizedPrior, cdf_logits, layers_of
from fa_hific_jax.entropy.gaussian import LIKELIHOODS, bits, gaussian_likelihood
from fa_hific_jax.entropy.tables import SCALE_TABLE

CHANNELS = 7  # in the reference numbers
VALUES = ["ints", "fracs", "extremes"]


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """float32, then float64 in double precision."""
    if request.param == "float64":
        request.getfixturevalue("x64")
    return np.dtype(request.param)


def prior_parameters(data, dtype):
    """Parameters of the reference's seven channels."""
    letters = {"h": "H", "a": "a", "b": "b"}
    return {f"{k}{i}": data[f"{letters[k]}_{i}"].astype(dtype) for k in "hab" for i in range(4)}


@pytest.mark.parametrize("kind", VALUES)
def test_cumulative_logits_equal_the_reference_in_numpy_and_in_jax(golden, x64, kind):
    data = golden("likelihoods")
    values = np.tile(data[kind].astype(np.float64), (CHANNELS, 1))
    layers = layers_of(prior_parameters(data, np.float64))
    in_numpy = cdf_logits(layers, values, xp=np)
    in_jax = jax.jit(cdf_logits)(layers, values)
    assert in_numpy.dtype == in_jax.dtype == np.float64
    # Measured: 5e-15; 5e-13 where logits reach 1000.
    np.testing.assert_allclose(in_numpy, data[f"logits_{kind}_f64"], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(in_jax, in_numpy, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", VALUES)
def test_prior_likelihoods_equal_the_reference(golden, kind, dtype):
    data = golden("likelihoods")
    values = jnp.asarray(data[kind], dtype)
    z = jnp.broadcast_to(values[None, None, :, None], (1, 1, len(values), CHANNELS))
    parameters = {"params": prior_parameters(data, dtype)}
    found = jax.jit(FactorizedPrior(CHANNELS, "pytorch").apply)(parameters, z)
    assert found.dtype == dtype
    # Measured in float32: 7e-8.
    near = {"rtol": 1e-9} if dtype == np.float64 else {"rtol": 1e-5, "atol": 2e-7}
    np.testing.assert_allclose(found[0, 0].T, data[f"likelihood_{kind}_f64"], **near)


def test_prior_gives_a_symbol_at_the_exact_median_its_probability():
    # Without biases the cumulative is odd: the two logits around 0 are exact opposites.
    prior, z = FactorizedPrior(1, "pytorch"), jnp.arange(-1.0, 2.0).reshape(1, 1, 3, 1)
    shapes = jax.eval_shape(prior.init, jax.random.key(0), z)
    parameters = jax.tree.map(lambda s: jnp.zeros(s.shape), shapes)
    before, median, after = prior.apply(parameters, z).ravel()
    assert median > before and median > after


@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_conditional_likelihoods_bits_and_gradients_equal_the_reference(golden, kind, dtype):
    data = golden("likelihoods")
    axes = np.meshgrid(*(data[f"cond_{k}"] for k in ("x", "mean", "scale_raw")), indexing="ij")
    given = [jnp.asarray(axis, dtype) for axis in axes]

    @jax.jit
    def evaluate(y, mean, scale):
        def code_length(*parameters):
            likelihood = LIKELIHOODS[kind](*parameters)
            return jnp.sum(bits(likelihood, "pytorch")), likelihood

        return jax.grad(code_length, argnums=(0, 1, 2), has_aux=True)(y, mean, scale)

    gradients, likelihood = evaluate(*given)
    expected = data[f"cond_{kind}_likelihood_f64"]
    assert likelihood.dtype == dtype
    if dtype == np.float32:
        # Measured: 6e-8 (Gaussian), 1.2e-7 (logistic).
        np.testing.assert_allclose(likelihood, expected, rtol=1e-4, atol=2e-7)
        return
    near = {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(likelihood, expected, **near)
    np.testing.assert_allclose(bits(likelihood, "pytorch"), data[f"cond_{kind}_bits_f64"], **near)
    for gradient, name in zip(gradients, ("dx", "dmean", "dscale"), strict=True):
        np.testing.assert_allclose(gradient, data[f"cond_{kind}_dbits_{name}_f64"], **near)


@pytest.mark.parametrize("kind, reach", [("gaussian", 1600.0), ("logistic", 3000.0)])
def test_conditionals_are_distributions_over_the_integers_at_every_scale_of_the_table(kind, reach):
    y = jnp.arange(-reach, reach + 1)
    y = jnp.broadcast_to(y[:, None], (len(y), 64))
    scale = jnp.broadcast_to(jnp.asarray(SCALE_TABLE)[None], y.shape)
    total = jnp.sum(LIKELIHOODS[kind](y, jnp.full_like(y, 0.3), scale), axis=0)
    np.testing.assert_allclose(total, np.ones(64), atol=1e-4)


def test_gaussian_tails_do_not_cancel_in_float32():
    # Between 1e-3 and 1e-8: 1 - cdf would have no digit left at the far end.
    y = np.arange(3, 6).astype(np.float32)
    expected = norm.sf(y - 0.5) - norm.sf(y + 0.5)
    for side in (-1, 1):
        found = gaussian_likelihood(jnp.asarray(side * y), jnp.zeros(3), jnp.ones(3))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
