"""Map of the bits of a file: the code length of each latent position."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

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
    channels = np.broadcast_to(np.arange(symbols.z.shape[2]), symbols.z.shape)
    coded = (
        (symbols.y, symbols.rows, entropy.y_tables),
        (symbols.z, channels, entropy.z_tables),
    )
    lengths = (
        tables.code_lengths(found.ravel(), rows.ravel().astype(np.int32), table)
        .reshape(found.shape)
        .sum(axis=2)
        for found, rows, table in coded
    )
    return BitsMap(*(each.astype(np.float32) for each in lengths))
