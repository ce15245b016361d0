"""Probabilities of latents and their integer tables, against the reference and in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_weights import draw
from scipy.stats import norm

from fa_hific_jax.entropy import tables
from fa_hific_jax.entropy.factorized import FactorizedPrior, cdf_logits, layers_of
from fa_hific_jax.entropy.gaussian import LIKELIHOODS, bits, gaussian_likelihood
from fa_hific_jax.entropy.tables import SCALE_TABLE
from fa_hific_jax.errors import UserError

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


# Tables.


def assert_valid(t: tables.Tables):
    """Every row starts at 0, gives each bin a count or more, ends at 2**16, then is zero."""
    for row, length in zip(t.cdf, t.length, strict=True):
        assert row[0] == 0 and row[length - 1] == 2**16
        assert np.diff(row[:length]).min() >= 1
        assert not row[length:].any()


@given(st.lists(st.floats(0, 1), min_size=2, max_size=300).filter(lambda p: sum(p) > 1e-6))
def test_quantized_pmf_sums_exactly_and_leaves_no_bin_empty(pmf):
    cdf = tables.quantize_pmf(np.array(pmf))
    assert cdf[0] == 0 and cdf[-1] == 2**16
    assert np.diff(cdf).min() >= 1


def test_counts_are_taken_one_by_one_from_the_smallest_bin_that_can_give():
    pmf = np.array([3.0, 2, 0, 0, 0, 3, 2**16 - 8])
    # Three empty bins: 2 gives one, then the first 3 gives two.
    assert np.diff(tables.quantize_pmf(pmf)).tolist() == [1, 1, 1, 1, 1, 3, 2**16 - 8]
    as_many_bins_as_counts = np.eye(1, 2**16)[0]
    assert np.all(np.diff(tables.quantize_pmf(as_many_bins_as_counts)) == 1)


@pytest.mark.parametrize("case", range(4))
def test_quantized_pmf_equals_the_reference(golden, case):
    data = golden("likelihoods")
    cdf = tables.quantize_pmf(data[f"quantcdf_pmf{case}"].astype(np.float64))
    np.testing.assert_array_equal(cdf, data[f"quantcdf_out{case}"])


def test_gaussian_tables_match_the_reference(golden):
    data = golden("likelihoods")
    np.testing.assert_allclose(SCALE_TABLE, data["scale_table"], rtol=1e-6)
    t = tables.gaussian_tables(data["scale_table"], tail_mass=2.0**-8)
    assert_valid(t)
    np.testing.assert_array_equal(t.offset, data["prior_cdf_offset"])
    np.testing.assert_array_equal(t.length, data["prior_cdf_length"])
    # The reference works in float32: its cumulative sums may round to the other neighbor.
    error = np.abs(t.cdf - data["prior_cdf"])
    assert error.max() <= 1
    assert np.count_nonzero(error) <= 20  # of 13014


def reference_density(values: np.ndarray) -> np.ndarray:
    """The 16-channel factorized density of the reference numbers."""
    filters, layers = (1, 3, 3, 3, 1), []
    for k in range(4):
        h, a, b = (
            draw(f"density16.{name}_{k}", (16, filters[k + 1], columns)).astype(np.float64)
            for name, columns in (("H", filters[k]), ("a", 1), ("b", 1))
        )
        h = np.log(np.expm1(1 / 10**0.25 / filters[k + 1])) + 0.1 * h
        layers.append((h, 0.1 * b, 0.1 * a))
    return cdf_logits(layers, values, np)


def test_factorized_tables_match_the_reference(golden):
    data = golden("likelihoods")
    t = tables.factorized_tables(reference_density, 16, tail_mass=2.0**-8)
    cdf, offset, length = (data[f"density16_cdf{name}"] for name in ("", "_offset", "_length"))
    # The reference searches its ranges by gradient descent: one symbol more or less on each side.
    assert np.abs(t.offset - offset).max() <= 1
    assert np.abs(t.length - length).max() <= 2
    same = (t.offset == offset) & (t.length == length)
    assert same.sum() >= 8
    width = min(t.cdf.shape[1], cdf.shape[1])
    assert np.abs(t.cdf[same, :width] - cdf[same, :width]).max() <= 1


def test_scale_indexes_equal_the_reference_and_an_entry_of_the_table_belongs_to_itself(golden):
    np.testing.assert_array_equal(tables.scale_indexes(SCALE_TABLE, SCALE_TABLE), np.arange(64))
    data = golden("likelihoods")
    indexes = tables.scale_indexes(data["index_scales"], data["scale_table"])
    np.testing.assert_array_equal(indexes, data["index_out"])


def test_logistic_tables_equal_the_reference(golden):
    # The reference's rows are at the table's own scales and have a tail mass of 2**-8.
    data = golden("likelihoods")
    t = tables.logistic_tables(data["scale_table"], tail_mass=2.0**-8)
    assert_valid(t)
    np.testing.assert_array_equal(t.offset, data["prior_logistic_cdf_offset"])
    np.testing.assert_array_equal(t.length, data["prior_logistic_cdf_length"])
    for row, stored in zip((0, 20, 40), data["prior_logistic_cdf_rows_0_20_40"], strict=True):
        entries = t.length[row]
        # Sums in float32 there, in float64 here.
        assert np.max(np.abs(t.cdf[row, :entries] - stored[:entries])) <= 1


def test_a_prior_without_bounds_gives_rows_of_bounded_width_and_one_not_finite_is_refused():
    endless = tables.factorized_tables(lambda v: 1e-9 * (v - 10.0), 2)
    assert_valid(endless)
    assert np.all(endless.length == tables.MAX_SYMBOLS + 2)
    with pytest.raises(UserError, match="logits that are not finite"):
        tables.factorized_tables(lambda v: np.full_like(v, np.nan), 2)


def test_ideal_bits_of_symbols_and_escapes_by_hand():
    cdf = np.array([[0, 2**15, 3 * 2**14, 2**16]], np.int32)  # symbols 7, 8 and the escape bin
    t = tables.Tables(cdf, np.array([7], np.int32), np.array([4], np.int32))
    bits = {7: 1, 8: 2, 9: 2 + 1, 6: 2 + 3, 10: 2 + 3, 5: 2 + 5, 11: 2 + 5, 4: 2 + 5, 12: 2 + 5}
    for symbol, expected in bits.items():
        one = np.array([symbol], np.int32)
        assert tables.ideal_bits(one, np.zeros(1, np.int32), t) == expected
