"""Symbols and integer CDFs to bytes and back: what both entropy coders have in common.

The layout of a stream is in docs/bitstream.md. Coders work on integers alone: where encoder and
decoder have the same tables and indexes, they agree on every machine. Two do the arithmetic, over
the same sequence of bins and bits: `constriction_coder` and `tfc_coder`.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int32, Int64, Integer

from fa_hific_jax.codec import constriction_coder, tfc_coder
from fa_hific_jax.codec.bitstream import CODERS, BitstreamError
from fa_hific_jax.entropy.tables import Tables, bins_to_symbols, bit_length, symbols_to_bins
from fa_hific_jax.errors import UserError

# Symbols are grouped by row within blocks of this many: a part of the format. It bounds the memory
# of coding, some 50 bytes per symbol of a block, and costs no bits, as the coder's state goes on.
BLOCK = 2**20
# Binary digits of the largest excess + 1: an int32 symbol at the far side of an int32 row.
_MAX_DIGITS = 33
_DAMAGED = "the coded data are damaged or belong to another model: fetch the file again"
_MODULES = {"constriction": constriction_coder, "tfc": tfc_coder}


def encode(
    symbols: Integer[np.ndarray, " n"],
    indexes: Integer[np.ndarray, " n"],
    tables: Tables,
    coder: str = "constriction",
) -> bytes:
    """The coded symbols, symbol i under row indexes[i] of the tables.

    Any int32 symbol can be coded: one outside its row costs the escape bin and an Exp-Golomb code
    of its distance to the row. The size is that of `ideal_bits` and at most 64 bits and 0.1 % more,
    with tfc 0.2 %: that much only where one unlucky count is coded all the time.
    Narrow types (int16 symbols, uint8 indexes) are widened one block at a time.

    Raises:
        UserError: an unknown coder, or one that is not installed.
    """
    encoder = _module(coder).Encoder(tables)
    for block, order in _blocks(indexes):
        rows = indexes[block][order].astype(np.int32)
        bins, excess = symbols_to_bins(symbols[block][order].astype(np.int32), rows, tables)
        encoder.put_bins(bins, rows)
        encoder.put_bits(_golomb_bits(excess))
    # Decoders read zeros past the end, so trailing zeros need not be stored.
    return encoder.finish().rstrip(b"\0")


def decode(
    data: bytes,
    indexes: Integer[np.ndarray, " n"],
    tables: Tables,
    coder: str = "constriction",
) -> Int32[np.ndarray, " n"]:
    """The symbols that `encode` was given, for the same indexes, tables and coder.

    Takes time and memory in proportion to the number of indexes and bytes, whatever the bytes are.

    Raises:
        BitstreamError: no symbols lead to these bytes. Most damage goes unnoticed here and gives
            wrong symbols; the container's checksums are what detects it.
        UserError: an unknown coder, or one that is not installed.
    """
    module = _module(coder)
    symbols = np.empty(indexes.size, np.int32)
    try:
        decoder = module.Decoder(data, tables)
        for block, order in _blocks(indexes):
            symbols[block][order] = _decode_block(decoder, indexes[block][order], tables)
        used_up = decoder.used_up()
    except module.ERRORS as error:
        raise BitstreamError(_DAMAGED) from error
    if not used_up:
        raise BitstreamError(_DAMAGED)
    return symbols


def _module(coder: str):
    if coder not in CODERS:
        raise UserError(f"there is no coder {coder!r}: choose one of {', '.join(CODERS)}")
    return _MODULES[coder]


def _blocks(indexes: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Positions of each block, and the order within it: by row, then by position."""
    for start in range(0, indexes.size, BLOCK):
        block = slice(start, start + BLOCK)
        # NumPy sorts integers of up to 16 bits by radix, several times faster than wider ones.
        yield block, np.argsort(indexes[block].astype(np.uint16), kind="stable")


def _decode_block(decoder, indexes: np.ndarray, tables: Tables) -> np.ndarray:
    rows = indexes.astype(np.int32)
    bins = decoder.get_bins(rows)
    escapes = np.count_nonzero(bins == tables.length[rows] - 2)
    excess = _read_golomb(decoder, int(escapes))
    symbols = bins_to_symbols(bins, excess, rows, tables)
    int32 = np.iinfo(np.int32)
    if np.any((symbols < int32.min) | (symbols > int32.max)):
        raise BitstreamError(_DAMAGED)
    return symbols


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
        growing = growing[decoder.get_bits(growing.size) == 1]
        digits[growing] += 1
        if digits.max() > _MAX_DIGITS:
            raise BitstreamError(_DAMAGED)
    values = np.ones(escapes, np.int64)
    for j in range(int(digits.max(initial=1)) - 1):
        longer = np.flatnonzero(digits - 2 >= j)
        values[longer] = 2 * values[longer] + decoder.get_bits(longer.size)
    return values - 1
