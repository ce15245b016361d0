"""Range coder of the package constriction, written in Rust: coder 0 in files."""

import itertools
from collections.abc import Iterator

import constriction
import numpy as np
from jaxtyping import Int32

from fa_hific_jax.entropy.tables import Tables

ERRORS = (AssertionError,)  # the only error that constriction raises for damaged data
_STREAM = constriction.stream  # pyright: ignore[reportAttributeAccessIssue]: set by the extension
_BIT = _STREAM.model.Uniform(2)


class Encoder:
    """Turns bins and bits into bytes."""

    def __init__(self, tables: Tables):
        self._encoder = _STREAM.queue.RangeEncoder()
        self._models = _Models(tables)

    def put_bins(self, bins: Int32[np.ndarray, " n"], rows: Int32[np.ndarray, " n"]) -> None:
        """Appends bins[i], coded with row rows[i] of the tables; rows are ascending."""
        for row, run in _runs(rows):
            self._encoder.encode(bins[run], self._models[row])

    def put_bits(self, bits: Int32[np.ndarray, " n"]) -> None:
        """Appends bits of probability 1/2."""
        self._encoder.encode(bits, _BIT)

    def finish(self) -> bytes:
        """Returns the stream."""
        return self._encoder.get_compressed().astype("<u4").tobytes()


class Decoder:
    """Turns bytes into bins and bits, in the order in which the encoder got them.

    The methods raise one of ERRORS in a state that no encoder reaches.
    """

    def __init__(self, data: bytes, tables: Tables):
        words = np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.uint32)
        self._decoder = _STREAM.queue.RangeDecoder(words)
        self._models = _Models(tables)

    def get_bins(self, rows: Int32[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
        """Returns the next bins, bin i coded with row rows[i] of the tables; rows are ascending."""
        bins = np.empty(rows.size, np.int32)
        for row, run in _runs(rows):
            bins[run] = self._decoder.decode(self._models[row], run.stop - run.start)
        return bins

    def get_bits(self, n: int) -> Int32[np.ndarray, " n"]:
        """Returns the next n bits."""
        return self._decoder.decode(_BIT, n)

    def used_up(self) -> bool:
        """Returns True if the stream may end here."""
        return self._decoder.maybe_exhausted()


class _Models(dict):
    """A map from a row to constriction's model of it, created when needed.

    The 24-bit probabilities of the model are exactly 256 times the counts of the row. constriction
    gives bin i of n the weight 1 + p[i] * (2**24 - n) / sum(p), with cumulative sums rounded down.
    With p = 256 * count - 1, the quotient is 1 and every float64 an exact integer.
    """

    def __init__(self, tables: Tables):
        self._tables = tables

    def __missing__(self, row: int):
        counts = np.diff(self._tables.cdf[row, : self._tables.length[row]])
        self[row] = _STREAM.model.Categorical(256.0 * counts - 1.0, perfect=False)
        return self[row]


def _runs(rows: np.ndarray) -> Iterator[tuple[int, slice]]:
    """Yields each row that occurs with the slice of its symbols, for one call of the coder."""
    starts = np.flatnonzero(np.diff(rows, prepend=-1)).tolist()
    for start, stop in itertools.pairwise([*starts, rows.size]):
        yield int(rows[start]), slice(start, stop)
