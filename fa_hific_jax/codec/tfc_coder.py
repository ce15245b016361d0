"""The range coder of TensorFlow Compression, in TensorFlow operations: coder 1 of files.

TensorFlow is imported when a coder is made and told to leave accelerators alone. Of the operations
only those for bounded symbols are used: their own Elias gamma code of outliers overflows at the
ends of int32 and does not end on some damaged streams.
"""

import os
from typing import Any

import numpy as np
from jaxtyping import Int32

from fa_hific_jax.entropy.tables import PRECISION, Tables
from fa_hific_jax.errors import UserError

ERRORS = ()  # any bytes decode to something, only `used_up` may notice
_BIT_ROW = np.array([1, 0, 1, 2], np.int32)  # precision, then the CDF of a bit


class Encoder:
    """Bins and bits in, bytes out."""

    def __init__(self, tables: Tables):
        self._ops = _operations()
        self._bit_row = len(tables.length)
        self._handle = self._ops.create_range_encoder(np.zeros(0, np.int32), _lookup(tables))

    def put_bins(self, bins: Int32[np.ndarray, " n"], rows: Int32[np.ndarray, " n"]) -> None:
        """Appends bins[i] of row rows[i]."""
        self._handle = self._ops.entropy_encode_index(self._handle, rows, bins)

    def put_bits(self, bits: Int32[np.ndarray, " n"]) -> None:
        """Appends bits of probability 1/2."""
        self.put_bins(bits, np.full(bits.size, self._bit_row, np.int32))

    def finish(self) -> bytes:
        """The stream."""
        return self._ops.entropy_encode_finalize(self._handle).numpy()


class Decoder:
    """Bytes in, bins and bits out, in the order in which they were put."""

    def __init__(self, data: bytes, tables: Tables):
        self._ops = _operations()
        self._bit_row = len(tables.length)
        self._handle = self._ops.create_range_decoder(data, _lookup(tables))

    def get_bins(self, rows: Int32[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
        """The next bins, bin i of row rows[i]."""
        self._handle, bins = self._ops.entropy_decode_index(
            self._handle, rows, rows.shape, np.int32
        )
        return bins.numpy()

    def get_bits(self, n: int) -> Int32[np.ndarray, " n"]:
        """The next n bits."""
        return self.get_bins(np.full(n, self._bit_row, np.int32))

    def used_up(self) -> bool:
        """Whether the stream may end here."""
        return bool(self._ops.entropy_decode_finalize(self._handle))


def _lookup(tables: Tables) -> Int32[np.ndarray, " entries"]:
    """All rows one after another, each led by its precision, and the row of a bit as the last."""
    rows = [row[:length] for row, length in zip(tables.cdf, tables.length, strict=True)]
    led = [np.append(np.int32(PRECISION), row) for row in rows]
    return np.concatenate([*led, _BIT_ROW]).astype(np.int32)


def _operations() -> Any:
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":  # which is what JAX sets
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # Or half a page about missing accelerators.
    try:
        import tensorflow_compression_ops as operations  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f"the coder tfc needs {error.name}: make an environment of requirements-tfc.txt, "
            "or pip install 'fa-hific-jax[tfc]'"
        ) from error
    import tensorflow as tf

    try:
        tf.config.set_visible_devices([], "GPU")  # TensorFlow would take the memory JAX needs.
    except RuntimeError:
        pass  # Whoever started TensorFlow before has decided about its devices.
    return operations
