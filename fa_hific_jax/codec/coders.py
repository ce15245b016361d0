"""Codes symbols to bytes and back, given integer CDFs.

docs/bitstream.md specifies the layout of a stream. Coding uses only integers: if encoder and
decoder have the same tables and indexes, they agree on every machine. `encode` turns symbols into
a sequence of bins, and one of the range coders turns the sequence into bytes. A bit is a bin of one
more row of the tables, with two halves.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import Any

import constriction
import numpy as np
from jaxtyping import Int32, Int64, Integer

from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.entropy.tables import (
    PRECISION,
    Tables,
    bins_to_symbols,
    bit_length,
    symbols_to_bins,
)
from fa_hific_jax.errors import UserError

# Symbols are sorted by row within blocks of this many; this is part of the format. It bounds the
# memory of coding, about 50 bytes per symbol of a block. It costs no bits, because the coder's
# state continues from block to block.
BLOCK = 2**20
# Binary digits of the largest excess + 1: int32 symbol and int32 row at opposite ends of the range.
_MAX_DIGITS = 33
_STREAM = constriction.stream  # pyright: ignore[reportAttributeAccessIssue]: set by the extension
Ints = Integer[np.ndarray, " n"]
Bins = Int32[np.ndarray, " n"]


def encode(symbols: Ints, indexes: Ints, tables: Tables, coder: str = "constriction") -> bytes:
    """Returns the coded symbols, where symbol i has row indexes[i] of the tables.

    Any int32 symbol can be coded: one outside its row costs the escape bin and an Exp-Golomb code
    of its distance to the row. The size exceeds `ideal_bits` by at most 64 bits and 0.1 % (0.2 %
    with tfc). Only a stream that codes one unlucky count all the time exceeds it by so much.

    Raises:
      UserError: the coder is unknown or not installed.
    """
    encoder = _range_coder(coder, tables)
    for block, order in _blocks(indexes):
        rows = indexes[block][order].astype(np.int32)
        bins, excess = symbols_to_bins(symbols[block][order].astype(np.int32), rows, tables)
        encoder.put(bins, rows)
        bits = _golomb_bits(excess)
        encoder.put(bits, np.full(bits.size, len(tables.length), np.int32))
    # Decoders read zeros beyond the end, so trailing zeros need not be stored.
    return encoder.finish().rstrip(b"\0")


def decode(data: bytes, indexes: Ints, tables: Tables, coder: str = "constriction") -> Bins:
    """Returns the symbols that `encode` was given, for the same indexes, tables and coder.

    Time and memory are proportional to the number of indexes and bytes, whatever the bytes are.

    Raises:
      BitstreamError: no symbols are coded as these bytes. Most damage is not noticed here and gives
        wrong symbols; the checksums of the container detect it.
      UserError: the coder is unknown or not installed.
    """
    decoder = _range_coder(coder, tables, data)
    symbols, int32 = np.empty(indexes.size, np.int32), np.iinfo(np.int32)
    try:
        for block, order in _blocks(indexes):
            rows = indexes[block][order].astype(np.int32)
            bins = decoder.get(rows)
            escapes = int(np.count_nonzero(bins == tables.length[rows] - 2))
            excess = _read_golomb(decoder, escapes, len(tables.length))
            found = bins_to_symbols(bins, excess, rows, tables)
            if np.any((found < int32.min) | (found > int32.max)):
                raise AssertionError("a symbol is out of range")
            symbols[block][order] = found
        if not decoder.used_up():
            raise AssertionError("bytes follow the last symbol")
    except AssertionError as error:  # what constriction raises in a state without a successor
        why = "the coded data are damaged or belong to another model: fetch the file again"
        raise BitstreamError(why) from error
    return symbols


def _range_coder(name: str, tables: Tables, data: bytes | None = None) -> Any:
    """Returns a range coder whose tables have a last row of two bins of probability 1/2."""
    if name not in _RANGE_CODERS:
        raise UserError(f"there is no coder {name!r}: choose one of {', '.join(_RANGE_CODERS)}")
    row = np.zeros((1, tables.cdf.shape[1]), np.int32)
    row[0, 1:3] = 2**15, 2**16
    added = (row, np.zeros(1, np.int32), np.full(1, 3, np.int32))
    with_bit = Tables(*(np.concatenate(pair) for pair in zip(tables, added, strict=True)))
    return _RANGE_CODERS[name](with_bit, data)


def _blocks(indexes: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields the positions of each block and their order in the stream: by row, then position."""
    for start in range(0, indexes.size, BLOCK):
        block = slice(start, start + BLOCK)
        # NumPy sorts integers of up to 16 bits by radix, several times faster than wider ones.
        yield block, np.argsort(indexes[block].astype(np.uint16), kind="stable")


def _golomb_bits(excess: Int64[np.ndarray, " escapes"]) -> Int32[np.ndarray, " bits"]:
    """Returns interleaved Exp-Golomb codes of order 0: bit j of all codes, for j = 0, 1, ...

    All lengths come first, in unary: a one for each further digit. The digits of excess + 1 after
    its leading one follow, highest first. Codes without a bit j are skipped.
    """
    values = excess + 1
    digits = bit_length(values)
    longest = int(digits.max(initial=0))
    lengths = [digits[digits >= j] > j for j in range(1, longest + 1)]
    shifts = [digits - 2 - j for j in range(longest - 1)]
    lower = [values[shift >= 0] >> shift[shift >= 0] & 1 for shift in shifts]
    return np.concatenate([np.zeros(0, bool), *lengths, *lower]).astype(np.int32)


def _read_golomb(decoder: Any, escapes: int, bit: int) -> Int64[np.ndarray, " escapes"]:
    """Returns the excess of each escape, whose codes consist of bins of the row `bit`."""

    def bits(n: int) -> np.ndarray:
        return decoder.get(np.full(n, bit, np.int32))

    digits = np.ones(escapes, np.int64)
    growing = np.arange(escapes)
    while growing.size:
        growing = growing[bits(growing.size) == 1]
        digits[growing] += 1
        if digits.max() > _MAX_DIGITS:
            raise AssertionError("a code is too long")
    values = np.ones(escapes, np.int64)
    for j in range(int(digits.max(initial=1)) - 1):
        longer = np.flatnonzero(digits - 2 >= j)
        values[longer] = 2 * values[longer] + bits(longer.size)
    return values - 1


class Constriction:
    """Range coder of the package constriction, written in Rust: coder 0 in files.

    It decodes the given data, or encodes if there are none.
    """

    def __init__(self, tables: Tables, data: bytes | None):
        self._tables = tables
        if data is None:
            self._coder = _STREAM.queue.RangeEncoder()
        else:
            words = np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.uint32)
            self._coder = _STREAM.queue.RangeDecoder(words)

    def put(self, bins: Bins, rows: Bins) -> None:
        """Encodes bins[i] with row rows[i] of the tables; rows ascend."""
        for model, run in _runs(self._tables, rows):
            self._coder.encode(bins[run], model)

    def finish(self) -> bytes:
        """Returns the encoded bytes."""
        return self._coder.get_compressed().astype("<u4").tobytes()

    def get(self, rows: Bins) -> Bins:
        """Decodes the bins of a `put`; raises an AssertionError where no encoder can have been."""
        bins = np.empty(rows.size, np.int32)
        for model, run in _runs(self._tables, rows):
            bins[run] = self._coder.decode(model, run.stop - run.start)
        return bins

    def used_up(self) -> bool:
        """Returns True if the data may end after the bins that were decoded."""
        return self._coder.maybe_exhausted()


def _runs(tables: Tables, rows: Bins) -> Iterator[tuple[Any, slice]]:
    """Yields constriction's model of each row that occurs, with the slice of its bins.

    The 24-bit probabilities of the model are exactly 256 times the counts of the row. constriction
    gives bin i of n the weight 1 + p[i] * (2**24 - n) / sum(p), with cumulative sums rounded down.
    With p = 256 * count - 1, the quotient is 1 and every float64 an exact integer.
    """
    starts = np.flatnonzero(np.diff(rows, prepend=-1)).tolist()
    for start, stop in itertools.pairwise([*starts, rows.size]):
        counts = np.diff(tables.cdf[rows[start], : tables.length[rows[start]]])
        model = _STREAM.model.Categorical(256.0 * counts - 1.0, perfect=False)
        yield model, slice(start, stop)


class Tfc:
    """Range coder of TensorFlow Compression, run as TensorFlow operations: coder 1 in files.

    Any bytes decode to something. The library's own code for outliers, Elias gamma, is not used: it
    overflows at the ends of int32 and does not terminate on some damaged streams.
    """

    def __init__(self, tables: Tables, data: bytes | None):
        self._ops = _operations()
        # All rows joined, each preceded by its precision.
        rows = zip(tables.cdf, tables.length, strict=True)
        lookup = np.concatenate([[PRECISION, *row[:length]] for row, length in rows])
        lookup = lookup.astype(np.int32)
        if data is None:
            self._handle = self._ops.create_range_encoder(np.zeros(0, np.int32), lookup)
        else:
            self._handle = self._ops.create_range_decoder(data, lookup)

    def put(self, bins: Bins, rows: Bins) -> None:
        self._handle = self._ops.entropy_encode_index(self._handle, rows, bins)

    def finish(self) -> bytes:
        return self._ops.entropy_encode_finalize(self._handle).numpy()

    def get(self, rows: Bins) -> Bins:
        found = self._ops.entropy_decode_index(self._handle, rows, rows.shape, np.int32)
        self._handle, bins = found
        return bins.numpy()

    def used_up(self) -> bool:
        return bool(self._ops.entropy_decode_finalize(self._handle))


def _operations() -> Any:
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":  # JAX sets 1.
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # Otherwise TensorFlow logs missing accelerators.
    try:
        import tensorflow_compression_ops as operations  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f"the coder tfc needs {error.name}: make an environment of requirements-tfc.txt, "
            "or pip install 'fa-hific-jax[tfc]'"
        ) from error
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # TensorFlow runs already: its devices are chosen.
        tf.config.set_visible_devices([], "GPU")  # It would take the memory that JAX needs.
    return operations


_RANGE_CODERS = {"constriction": Constriction, "tfc": Tfc}
