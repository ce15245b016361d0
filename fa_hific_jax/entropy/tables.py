"""Integer CDFs for the coders, and the bins of symbols in them.

Encoder and decoder must use the same integers, and `scipy.special` may differ in the last bit
between versions and machines. Tables are therefore built once, on the host in float64, and stored
with the model; a decoder never rebuilds them.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy  # Its submodules load when they are first used; decoders need none of them.
from jaxtyping import Float, Float64, Int32, Int64

from fa_hific_jax.errors import UserError

SCALE_MIN = 0.11
"""Smallest standard deviation: with smaller ones a rounded symbol would almost always be 0."""

SCALE_TABLE = np.exp(np.linspace(np.log(SCALE_MIN), np.log(256.0), 64)).astype(np.float32)
"""The 64 standard deviations for which coding tables exist (HiFiC, models/hific/archs.py)."""

PRECISION = 16  # in bits: the counts of a row sum to 2**16

# Narrow rows cost bits for escapes, wide rows for bins that must hold at least one count. Over the
# 64 scales 0.11..256, the expected size exceeds the entropy of the Gaussian by 0.086 % with a tail
# mass of 2**-8, 0.022 % with 2**-10, 0.011 % with 2**-12, 0.020 % with 2**-14, 0.036 % with 2**-16.
TAIL_MASS = 2.0**-12

MAX_SYMBOLS = 4096  # per row, because an untrained prior can be arbitrarily wide
SEARCH_LIMIT = 2**24  # largest |z| in the search for the ends of a row

CdfLogits = Callable[[np.ndarray], np.ndarray]
Vector = Int32[np.ndarray, " n"]


class Tables(NamedTuple):
    """Integer CDFs, one row per distribution.

    Row r has `length[r] - 1` bins. Bin i < length[r] - 2 holds the symbol `offset[r] + i`, and the
    last bin is the escape bin for all other symbols. Bin i has `cdf[r, i + 1] - cdf[r, i] >= 1` of
    the 2**16 counts. Entries of `cdf[r]` from `length[r]` on are 0 and unused.
    """

    cdf: Int32[np.ndarray, "rows width"]
    offset: Int32[np.ndarray, " rows"]
    length: Int32[np.ndarray, " rows"]


def quantize_pmf(pmf: Float64[np.ndarray, " bins"]) -> Int32[np.ndarray, " entries"]:
    """Returns a CDF from 0 to 2**16 with at least one count per bin, for at most 2**16 bins.

    The normalized cumulative sums are rounded half to even. Each empty bin then takes a count from
    the smallest bin that has more than one, or the first of the smallest, like
    `pmf_to_quantized_cdf` in the PyTorch HiFiC.
    """
    cumulative = np.cumsum(pmf)
    rounded = np.rint(cumulative * (2**PRECISION / cumulative[-1])).astype(np.int64)
    counts = np.diff(rounded, prepend=0)
    # The smallest bin stays the smallest while it gives counts, so bins give in the order of their
    # size until they have one count. A running total replaces one search per empty bin.
    givers = np.argsort(counts, kind="stable")
    givers = givers[counts[givers] > 1]
    spare = counts[givers] - 1
    given_before = np.cumsum(spare) - spare
    counts[givers] -= np.clip(np.count_nonzero(counts == 0) - given_before, 0, spare)
    counts[counts == 0] = 1
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


def gaussian_tables(scales: Float[np.ndarray, " rows"], tail_mass: float = TAIL_MASS) -> Tables:
    """Returns one row per scale for round(x) with x ~ N(0, scale**2), and symbols -c..c.

    c = ceil(scale * q), where a standard normal exceeds q in magnitude with probability tail_mass.
    """
    return _symmetric_tables(scales, scipy.special.ndtr, -scipy.special.ndtri(tail_mass / 2))


def logistic_tables(scales: Float[np.ndarray, " rows"], tail_mass: float = TAIL_MASS) -> Tables:
    """Like `gaussian_tables`, but for logistic distributions, F(x) = sigmoid(x / scale)."""
    return _symmetric_tables(scales, scipy.special.expit, -scipy.special.logit(tail_mass / 2))


CONDITIONAL_TABLES = {"gaussian": gaussian_tables, "logistic": logistic_tables}
"""Functions that build the tables of the latents, by the name of the likelihood."""


def factorized_tables(cdf_logits: CdfLogits, channels: int, tail_mass: float = TAIL_MASS) -> Tables:
    """Returns one row per channel of the factorized prior, P(z) = F(z + 1/2) - F(z - 1/2).

    A row ends where the probability beyond is tail_mass / 2 on either side, as in the PyTorch
    HiFiC. It has at most MAX_SYMBOLS symbols around the median. `cdf_logits` maps float64 values
    (channels, n) to the logits of the cumulative F there, which increase with the values. Raises a
    UserError if a logit is not finite.
    """
    tail_logit = math.log(2 / tail_mass - 1)
    median = _last_below(cdf_logits, channels, 0.0)
    first = np.maximum(_last_below(cdf_logits, channels, -tail_logit), median - MAX_SYMBOLS // 2)
    last = np.minimum(_last_below(cdf_logits, channels, tail_logit) + 1, first + MAX_SYMBOLS - 1)
    edges = first[:, None] + np.arange(np.max(last - first) + 2) - 0.5
    logits = np.asarray(cdf_logits(edges), np.float64)
    if not np.isfinite(logits).all():
        raise UserError("the prior gives logits that are not finite: take an earlier checkpoint")
    pmfs, expit = [], scipy.special.expit
    for row, n in zip(logits, last - first, strict=True):
        lower, upper = row[: n + 1], row[1 : n + 2]
        # Edges in the right tail are mirrored, so that no cumulative is rounded to 1.
        sign = np.where(lower + upper > 0, -1.0, 1.0)
        pmf = np.abs(expit(sign * upper) - expit(sign * lower))
        pmfs.append(np.append(pmf, expit(lower[0]) + expit(-upper[-1])))
    return _stack(pmfs, first)


def middle_scales(table: Float[np.ndarray, " rows"]) -> Float64[np.ndarray, " rows"]:
    """Returns the geometric mean of the range of scales that `scale_indexes` maps to each row.

    Gaussians with the table's own scales, all too wide for their symbols, would cost 0.2 to 0.5 %
    of the bits instead of 0.05 to 0.13 % (for log-normal scales with medians of 3 to 0.2). The
    first row keeps its entry, which is the lower bound of all scales.
    """
    table = table.astype(np.float64)
    return np.concatenate([table[:1], np.sqrt(table[1:] * table[:-1])])


def scale_indexes(
    scale: Float[np.ndarray, "*s"], table: Float[np.ndarray, " rows"]
) -> Int32[np.ndarray, "*s"]:
    """Returns the row of each scale: the first entry that is not smaller, at most the last row."""
    return np.minimum(np.searchsorted(table, scale), len(table) - 1).astype(np.int32)


def symbols_to_bins(
    symbols: Vector, indexes: Vector, tables: Tables
) -> tuple[Vector, Int64[np.ndarray, " escapes"]]:
    """Returns the bin of each symbol in its row, and the excesses of escaped symbols in order.

    With d >= 0, the excess is 2 d for the symbol d places after the first one above the row, and
    2 d + 1 for the symbol d places before the first one below it.
    """
    above = symbols.astype(np.int64) - tables.offset[indexes]
    escape_bin = tables.length[indexes] - 2
    escaped = (above < 0) | (above >= escape_bin)
    bins = np.where(escaped, escape_bin, above).astype(np.int32)
    above, beyond = above[escaped], (above - escape_bin)[escaped]
    return bins, np.where(above < 0, -2 * above - 1, 2 * beyond)


def bins_to_symbols(
    bins: Vector, excess: Int64[np.ndarray, " escapes"], indexes: Vector, tables: Tables
) -> Int64[np.ndarray, " n"]:
    """Inverts `symbols_to_bins`, in int64 because invalid excesses lead to symbols beyond int32."""
    above = bins.astype(np.int64)
    escaped = np.flatnonzero(bins == tables.length[indexes] - 2)
    distance = excess >> 1
    above[escaped] = np.where(excess & 1, -1 - distance, above[escaped] + distance)
    return above + tables.offset[indexes]


def ideal_bits(symbols: Vector, indexes: Vector, tables: Tables) -> float:
    """Returns the code length in bits with these tables, including Exp-Golomb codes of escapes."""
    return float(np.sum(code_lengths(symbols, indexes, tables)))


def code_lengths(symbols: Vector, indexes: Vector, tables: Tables) -> Float64[np.ndarray, " n"]:
    """Like `ideal_bits`, but for each symbol."""
    bins, excess = symbols_to_bins(symbols, indexes, tables)
    lengths = PRECISION - np.log2(tables.cdf[indexes, bins + 1] - tables.cdf[indexes, bins])
    lengths[bins == tables.length[indexes] - 2] += 2 * bit_length(excess + 1) - 1
    return lengths


def bit_length(values: Int64[np.ndarray, " n"]) -> Vector:
    """Returns the number of binary digits of each value, for 0 < value < 2**53."""
    return np.frexp(values.astype(np.float64))[1]


def _symmetric_tables(scales: np.ndarray, cdf: Callable, quantile: float) -> Tables:
    half_widths = np.ceil(scales.astype(np.float64) * quantile).astype(np.int64)
    pmfs = []
    for scale, c in zip(scales.astype(np.float64).tolist(), half_widths.tolist(), strict=True):
        # Both edges are on the left of the mean, where neither cumulative is rounded to 1.
        distance = np.abs(np.arange(-c, c + 1))
        pmf = cdf((0.5 - distance) / scale) - cdf((-0.5 - distance) / scale)
        pmfs.append(np.append(pmf, 2 * cdf((-0.5 - c) / scale)))
    return _stack(pmfs, -half_widths)


def _last_below(cdf_logits: CdfLogits, channels: int, target: float) -> np.ndarray:
    """Returns the largest integer of each channel whose logit is <= target, by bisection."""
    low, high = np.full(channels, -SEARCH_LIMIT), np.full(channels, SEARCH_LIMIT)
    while np.any(high - low > 1):
        middle = (low + high) // 2
        below = cdf_logits(middle[:, None].astype(np.float64))[:, 0] <= target
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return low


def _stack(pmfs: list[np.ndarray], offset: np.ndarray) -> Tables:
    rows = [quantize_pmf(pmf) for pmf in pmfs]
    length = np.array([len(row) for row in rows], np.int32)
    cdf = np.stack([np.pad(row, (0, int(length.max()) - len(row))) for row in rows])
    return Tables(cdf, offset.astype(np.int32), length)
