"""Range coder of TensorFlow Compression, run as TensorFlow operations: coder 1 in files.

TensorFlow is imported when a coder is created, and told not to use accelerators. Only the
operations for bounded symbols are used. The library's own code for outliers, Elias gamma, overflows
at the ends of int32 and does not terminate on some damaged streams.
"""

import contextlib
import os
from typing import Any

import numpy as np
from jaxtyping import Int32

from fa_hific_jax.entropy.tables import PRECISION, Tables
from fa_hific_jax.errors import UserError

ERRORS = ()  # Any bytes decode to something; only `used_up` may notice damage.
_BIT_ROW = np.array([1, 0, 1, 2], np.int32)  # the precision, then the CDF of a bit


class Encoder:
    """Turns bins and bits into bytes."""

    def __init__(self, tables: Tables):
        self._ops = _operations()
        self._bit_row = len(tables.length)
        self._handle = self._ops.create_range_encoder(np.zeros(0, np.int32), _lookup(tables))

    def put_bins(self, bins: Int32[np.ndarray, " n"], rows: Int32[np.ndarray, " n"]) -> None:
        """Appends bins[i], coded with row rows[i] of the tables."""
        self._handle = self._ops.entropy_encode_index(self._handle, rows, bins)

    def put_bits(self, bits: Int32[np.ndarray, " n"]) -> None:
        """Appends bits of probability 1/2."""
        self.put_bins(bits, np.full(bits.size, self._bit_row, np.int32))

    def finish(self) -> bytes:
        """Returns the stream."""
        return self._ops.entropy_encode_finalize(self._handle).numpy()


class Decoder:
    """Turns bytes into bins and bits, in the order in which the encoder got them."""

    def __init__(self, data: bytes, tables: Tables):
        self._ops = _operations()
        self._bit_row = len(tables.length)
        self._handle = self._ops.create_range_decoder(data, _lookup(tables))

    def get_bins(self, rows: Int32[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
        """Returns the next bins, bin i coded with row rows[i] of the tables."""
        found = self._ops.entropy_decode_index(self._handle, rows, rows.shape, np.int32)
        self._handle, bins = found
        return bins.numpy()

    def get_bits(self, n: int) -> Int32[np.ndarray, " n"]:
        """Returns the next n bits."""
        return self.get_bins(np.full(n, self._bit_row, np.int32))

    def used_up(self) -> bool:
        """Returns True if the stream may end here."""
        return bool(self._ops.entropy_decode_finalize(self._handle))


def _lookup(tables: Tables) -> Int32[np.ndarray, " entries"]:
    """Returns all rows joined, each preceded by its precision; the last is the row of a bit."""
    rows = zip(tables.cdf, tables.length, strict=True)
    led = [np.append(np.int32(PRECISION), row[:length]) for row, length in rows]
    return np.concatenate([*led, _BIT_ROW]).astype(np.int32)


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
