"""Codes symbols to bytes and back, given integer CDFs.

docs/bitstream.md specifies the layout of a stream. Coding uses only integers: if encoder and
decoder have the same tables and indexes, they agree on every machine. This module turns symbols
into a sequence of bins and bits. `constriction_coder` and `tfc_coder` are the two range coders
that turn this sequence into bytes.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int32, Int64, Integer

from fa_hific_jax.codec import constriction_coder, tfc_coder
from fa_hific_jax.codec.bitstream import CODERS, BitstreamError
from fa_hific_jax.entropy.tables import Tables, bins_to_symbols, bit_length, symbols_to_bins
from fa_hific_jax.errors import UserError

# Symbols are sorted by row within blocks of this many; this is part of the format. It bounds the
# memory of coding, about 50 bytes per symbol of a block. It costs no bits, because the coder's
# state continues from block to block.
BLOCK = 2**20
# Binary digits of the largest excess + 1: int32 symbol and int32 row at opposite ends of the range.
_MAX_DIGITS = 33
_DAMAGED = "the coded data are damaged or belong to another model: fetch the file again"
_MODULES = {"constriction": constriction_coder, "tfc": tfc_coder}
Ints = Integer[np.ndarray, " n"]


def encode(symbols: Ints, indexes: Ints, tables: Tables, coder: str = "constriction") -> bytes:
    """Returns the coded symbols, where symbol i has row indexes[i] of the tables.

    Any int32 symbol can be coded: one outside its row costs the escape bin and an Exp-Golomb code
    of its distance to the row. The size exceeds `ideal_bits` by at most 64 bits and 0.1 % (0.2 %
    with tfc). Only a stream that codes one unlucky count all the time exceeds it by so much.
    Narrow types (int16 symbols, uint8 indexes) are widened one block at a time.

    Raises:
      UserError: the coder is unknown or not installed.
    """
    encoder = _module(coder).Encoder(tables)
    for block, order in _blocks(indexes):
        rows = indexes[block][order].astype(np.int32)
        bins, excess = symbols_to_bins(symbols[block][order].astype(np.int32), rows, tables)
        encoder.put_bins(bins, rows)
        encoder.put_bits(_golomb_bits(excess))
    # Decoders read zeros beyond the end, so trailing zeros need not be stored.
    return encoder.finish().rstrip(b"\0")


def decode(
    data: bytes, indexes: Ints, tables: Tables, coder: str = "constriction"
) -> Int32[np.ndarray, " n"]:
    """Returns the symbols that `encode` was given, for the same indexes, tables and coder.

    Time and memory are proportional to the number of indexes and bytes, whatever the bytes are.

    Raises:
      BitstreamError: no symbols are coded as these bytes. Most damage is not noticed here and gives
        wrong symbols; the checksums of the container detect it.
      UserError: the coder is unknown or not installed.
    """
    module = _module(coder)
    symbols, int32 = np.empty(indexes.size, np.int32), np.iinfo(np.int32)
    try:
        decoder = module.Decoder(data, tables)
        for block, order in _blocks(indexes):
            rows = indexes[block][order].astype(np.int32)
            bins = decoder.get_bins(rows)
            excess = _read_golomb(decoder, int(np.sum(bins == tables.length[rows] - 2)))
            found = bins_to_symbols(bins, excess, rows, tables)
            if np.any((found < int32.min) | (found > int32.max)):
                raise BitstreamError(_DAMAGED)
            symbols[block][order] = found
        if not decoder.used_up():
            raise BitstreamError(_DAMAGED)
    except module.ERRORS as error:
        raise BitstreamError(_DAMAGED) from error
    return symbols


def _module(coder: str):
    if coder not in CODERS:
        raise UserError(f"there is no coder {coder!r}: choose one of {', '.join(CODERS)}")
    return _MODULES[coder]


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


def _read_golomb(decoder, escapes: int) -> Int64[np.ndarray, " escapes"]:
    """Returns the excess of each escape; raises a BitstreamError for a code that is too long."""
    digits = np.ones(escapes, np.int64)
    growing = np.arange(escapes)
    while growing.size:
        growing = growing[decoder.get_bits(growing.size) == 1]
        digits[growing] += 1
        if digits.max() > _MAX_DIGITS:
            raise BitstreamError(_DAMAGED)
    values = np.ones(escapes, np.int64)
    for j in range(int(digits.max(initial=1)) - 1):
        longer = np.flatnonzero(digits - 2 >= j)
        values[longer] = 2 * values[longer] + decoder.get_bits(longer.size)
    return values - 1
