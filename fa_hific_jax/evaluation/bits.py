"""Map of the bits of a file: the code length of each latent position."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from fa_hific_jax.codec import bitstream, coding
from fa_hific_jax.codec.coding import EntropyModel, Quantized
from fa_hific_jax.entropy import tables


class BitsMap(NamedTuple):
    """Bits by position, summed over channels, of the padded image's latents and hyper-latents."""

    y: Float32[np.ndarray, "hy wy"]
    z: Float32[np.ndarray, "hz wz"]


def of_file(entropy: EntropyModel, data: bytes) -> BitsMap:
    """Returns the map of a file of `Model.compress`, by the tables that coded it.

    The file is larger than the sum by its header and the end of the range coder's streams.
    """
    symbols, _ = coding.decode_symbols(entropy, bitstream.unpack(data))
    return of_symbols(entropy, symbols)


def of_symbols(entropy: EntropyModel, symbols: Quantized) -> BitsMap:
    """Returns the map of symbols: -log2 of their share of the integer tables, with escapes."""
    channels = np.broadcast_to(np.arange(symbols.z.shape[2], dtype=np.int32), symbols.z.shape)
    return BitsMap(
        _lengths(symbols.y, symbols.rows.astype(np.int32), entropy.y_tables),
        _lengths(symbols.z, channels, entropy.z_tables),
    )


def _lengths(
    symbols: Int32[np.ndarray, "h w c"], rows: Int32[np.ndarray, "h w c"], table: tables.Tables
) -> Float32[np.ndarray, "h w"]:
    lengths = tables.code_lengths(symbols.ravel(), rows.ravel(), table)
    return lengths.reshape(symbols.shape).sum(axis=2).astype(np.float32)
