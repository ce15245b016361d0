"""Symbols and integer CDFs to bytes and back, with constriction's range coder.

The layout of a stream is in docs/bitstream.md. The coder works on integers alone: where encoder
and decoder have the same tables and indexes, they agree on every machine.
"""

import itertools
from collections.abc import Iterator

import constriction
import numpy as np
from jaxtyping import Int32, Int64

from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.entropy.tables import Tables, bins_to_symbols, bit_length, symbols_to_bins

# Binary digits of the largest excess + 1: an int32 symbol at the far side of an int32 row.
_MAX_DIGITS = 33
_STREAM = constriction.stream  # pyright: ignore[reportAttributeAccessIssue]: set by the extension
_BIT = _STREAM.model.Uniform(2)
_DAMAGED = "the coded data are damaged or belong to another model: fetch the file again"


def encode(
    symbols: Int32[np.ndarray, " n"], indexes: Int32[np.ndarray, " n"], tables: Tables
) -> bytes:
    """The coded symbols, symbol i under row indexes[i] of the tables.

    Any int32 symbol can be coded: one outside its row costs the escape bin and an Exp-Golomb code
    of its distance to the row. The size is that of `ideal_bits` and at most 0.1 % and 64 bits more.
    """
    order = _row_order(indexes)
    indexes = indexes[order]
    bins, excess = symbols_to_bins(symbols[order], indexes, tables)
    encoder = _STREAM.queue.RangeEncoder()
    for row, run in _runs(indexes):
        encoder.encode(bins[run], _model(tables, row))
    encoder.encode(_golomb_bits(excess), _BIT)
    # The decoder reads zeros past the end, so trailing zeros need not be stored.
    return encoder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")


def decode(
    data: bytes, indexes: Int32[np.ndarray, " n"], tables: Tables
) -> Int32[np.ndarray, " n"]:
    """The symbols that `encode` was given, for the same indexes and tables.

    Takes time and memory in proportion to the number of indexes and bytes, whatever the bytes are.

    Raises:
        BitstreamError: no symbols lead to these bytes. Most damage goes unnoticed here and gives
            wrong symbols; the container's checksum is what detects it.
    """
    words = np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.uint32)
    decoder = _STREAM.queue.RangeDecoder(words)
    order = _row_order(indexes)
    sorted_indexes = indexes[order]
    bins = np.empty(len(indexes), np.int32)
    for row, run in _runs(sorted_indexes):
        bins[run] = _read(decoder, _model(tables, row), run.stop - run.start)
    escapes = np.count_nonzero(bins == tables.length[sorted_indexes] - 2)
    excess = _read_golomb(decoder, int(escapes))
    decoded = bins_to_symbols(bins, excess, sorted_indexes, tables)
    int32 = np.iinfo(np.int32)
    if not decoder.maybe_exhausted() or np.any((decoded < int32.min) | (decoded > int32.max)):
        raise BitstreamError(_DAMAGED)
    symbols = np.empty(len(indexes), np.int32)
    symbols[order] = decoded
    return symbols


def _row_order(indexes: np.ndarray) -> np.ndarray:
    # Grouped by row, so that the coder is called once per row and not once per symbol. NumPy sorts
    # 16-bit integers by radix, several times faster than wider ones.
    return np.argsort(indexes.astype(np.uint16), kind="stable")


def _runs(sorted_indexes: np.ndarray) -> Iterator[tuple[int, slice]]:
    """Each row that occurs, with the positions of its symbols."""
    starts = np.flatnonzero(np.diff(sorted_indexes, prepend=-1)).tolist()
    for start, stop in itertools.pairwise([*starts, len(sorted_indexes)]):
        yield int(sorted_indexes[start]), slice(start, stop)


def _model(tables: Tables, row: int):
    """The row as a model whose 24-bit probabilities are exactly 256 times the counts.

    constriction gives bin i of n the weight 1 + p[i] * (2**24 - n) / sum(p), with cumulative sums
    rounded down. With p = 256 * count - 1 the quotient is 1 and every float64 an exact integer.
    """
    counts = np.diff(tables.cdf[row, : tables.length[row]])
    return _STREAM.model.Categorical(256.0 * counts - 1.0, perfect=False)


def _golomb_bits(excess: Int64[np.ndarray, " escapes"]) -> Int32[np.ndarray, " bits"]:
    """Exp-Golomb codes of order 0, interleaved: bit j of all codes that have one, for j = 0, 1, ...

    First the lengths of all in unary (a one for each further digit), then the digits of
    excess + 1 after its leading one, highest first.
    """
    values = excess + 1
    digits = bit_length(values)
    longest = int(digits.max(initial=0))
    lengths = [digits[digits >= j] > j for j in range(1, longest + 1)]
    shifts = [digits - 2 - j for j in range(longest - 1)]
    lower = [values[shift >= 0] >> shift[shift >= 0] & 1 for shift in shifts]
    return np.concatenate([np.zeros(0, bool), *lengths, *lower]).astype(np.int32)


def _read_golomb(decoder, escapes: int) -> Int64[np.ndarray, " escapes"]:
    """The excess of each escape. Raises BitstreamError at a code longer than any valid one."""
    digits = np.ones(escapes, np.int64)
    growing = np.arange(escapes)
    while growing.size:
        growing = growing[_read(decoder, _BIT, growing.size) == 1]
        digits[growing] += 1
        if digits.max() > _MAX_DIGITS:
            raise BitstreamError(_DAMAGED)
    values = np.ones(escapes, np.int64)
    for j in range(int(digits.max(initial=1)) - 1):
        longer = np.flatnonzero(digits - 2 >= j)
        values[longer] = 2 * values[longer] + _read(decoder, _BIT, longer.size)
    return values - 1


def _read(decoder, model, n: int) -> np.ndarray:
    """The next n symbols. Raises BitstreamError where the state is one no encoder reaches."""
    try:
        return decoder.decode(model, n)
    except AssertionError as error:  # constriction's only complaint about data
        raise BitstreamError(_DAMAGED) from error
