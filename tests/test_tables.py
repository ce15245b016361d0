"""Integer tables: sums, ranges, tails, the reference's numbers, and the code length they imply."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_weights import draw

from fa_hific_jax.entropy import tables
from fa_hific_jax.errors import UserError

SCALE_TABLE = tables.SCALE_TABLE


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
    """The 16-channel factorized density of the reference numbers, written out in NumPy."""
    filters = (1, 3, 3, 3, 1)
    v = values[:, None, :]
    for k in range(4):
        h, a, b = (
            draw(f"density16.{name}_{k}", (16, filters[k + 1], columns))
            for name, columns in (("H", filters[k]), ("a", 1), ("b", 1))
        )
        h = np.log(np.expm1(1 / 10**0.25 / filters[k + 1])) + 0.1 * h.astype(np.float64)
        v = np.log1p(np.exp(h)) @ v + 0.1 * b
        v = v + np.tanh(0.1 * a) * np.tanh(v)
    return v[:, 0]


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
