"""Coded streams: round trip of any int32, size against theory, the format, damaged data.

What concerns both coders runs for both where tensorflow-compression-ops is installed.
"""

import importlib.util
import itertools
import sys

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import ndtr

from fa_hific_jax.codec import coders
from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.entropy import tables
from fa_hific_jax.entropy.tables import SCALE_TABLE
from fa_hific_jax.errors import UserError

HAS_TFC = importlib.util.find_spec("tensorflow_compression_ops") is not None
needs_tfc = pytest.mark.skipif(not HAS_TFC, reason="needs requirements-tfc.txt")
EACH = ["constriction", pytest.param("tfc", marks=needs_tfc)]
each_coder = pytest.mark.parametrize("coder", EACH)
GAUSSIAN = tables.gaussian_tables(tables.middle_scales(SCALE_TABLE))
INT32 = np.iinfo(np.int32)


def row_tables(first: int, *counts: int) -> tables.Tables:
    """Tables of one row with these counts, the last that of the escape bin."""
    cdf = np.cumsum([0, *counts], dtype=np.int32)[None]
    return tables.Tables(cdf, np.array([first], np.int32), np.array([cdf.size], np.int32))


def zeros(n: int) -> np.ndarray:
    return np.zeros(n, np.int32)


def assert_survives(symbols, indexes, t: tables.Tables, coder: str) -> bytes:
    """Returns the stream that the symbols come back from."""
    data = coders.encode(symbols, indexes, t, coder)
    np.testing.assert_array_equal(coders.decode(data, indexes, t, coder), symbols)
    return data


@st.composite
def messages(draw):
    """Symbols and indexes of one length: likely symbols, any int32, its extremes."""
    n = draw(st.integers(0, 60))
    symbol = st.integers(-4, 4) | st.integers(-2000, 2000) | st.integers(INT32.min, INT32.max)
    symbols = draw(hnp.arrays(np.int32, n, elements=symbol))
    return symbols, draw(hnp.arrays(np.int32, n, elements=st.integers(0, 63)))


@each_coder
@given(messages(), st.integers(7, 70))
@settings(deadline=None)
def test_any_symbols_survive_coding_in_any_blocks_and_the_documented_decoder(coder, message, block):
    symbols, indexes = message
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coders, "BLOCK", block)
        data = assert_survives(symbols, indexes, GAUSSIAN, coder)
        assert coders.encode(symbols, indexes.astype(np.uint8), GAUSSIAN, coder) == data
    assert documented_decode(coder, data, indexes, GAUSSIAN, block) == symbols.tolist()
    assert 8 * len(data) <= tables.ideal_bits(symbols, indexes, GAUSSIAN) + 64


@pytest.mark.parametrize("code, message", [(coders.encode, zeros(1)), (coders.decode, b"")])
def test_a_coder_that_is_unknown_or_not_installed_is_named(code, message, monkeypatch):
    with pytest.raises(UserError, match="no coder 'zip': choose one of constriction, tfc"):
        code(message, zeros(1), GAUSSIAN, "zip")
    monkeypatch.setitem(sys.modules, "tensorflow_compression_ops", None)
    with pytest.raises(UserError, match="tensorflow_compression_ops: .* requirements-tfc.txt"):
        code(message, zeros(1), GAUSSIAN, "tfc")


@each_coder
@pytest.mark.parametrize("first", [INT32.min, -1, 0, INT32.max - 1])
def test_the_extremes_of_int32_survive_wherever_the_row_lies(coder, first):
    t = row_tables(first, 2**15, 2**14, 2**14)
    symbols = np.array([INT32.min, INT32.max, 0, -1, 1, INT32.min + 1], np.int32)
    assert_survives(symbols, zeros(6), t, coder)
    for n in (0, 10_000):
        zero_bytes_alone = assert_survives(zeros(n), zeros(n), row_tables(0, 2**15, 2**15), coder)
        assert zero_bytes_alone == b""


# What version 2 of the format gives: other bytes are another version.
PINNED = {
    "constriction": "2606b3e8afbcbfc5f52a120873fdffcf57eeffffd298f27e00d85df600a615",
    "tfc": "e8b30625ec580bb05bb2fff5c91ffd7247ffee4b944cfa939ddcd6f00016",
}


@pytest.mark.parametrize("coder", PINNED)
def test_the_bytes_of_a_stream_do_not_change(coder):
    cdf = np.array([[0, 60000, 65535, 65536], [0, 9, 40000, 65536]], np.int32)
    t = tables.Tables(cdf, np.array([0, -5], np.int32), np.array([4, 4], np.int32))
    symbols = np.array([0, -5, 1, 0, 500, -70000, -4, 1, INT32.max, INT32.min], np.int32)
    indexes = np.array([0, 1, 0, 0, 0, 1, 1, 0, 1, 0], np.int32)
    if coder == "constriction" or HAS_TFC:
        assert coders.encode(symbols, indexes, t, coder).hex() == PINNED[coder]
    found = documented_decode(coder, bytes.fromhex(PINNED[coder]), indexes, t)
    assert found == symbols.tolist()


def documented_decode(coder, data: bytes, indexes, t: tables.Tables, block=2**20) -> list[int]:
    """Decodes in plain integers, as written from docs/bitstream.md alone."""
    read = reader(data, *DOCUMENTED[coder])
    starts = range(0, len(indexes), block)
    return sum((decode_block(read, indexes[i : i + block], t) for i in starts), [])


def constriction_edges(span: int, cumulative: list[int]) -> list[int]:
    return [(span >> 24) * (2**24 // cumulative[-1]) * count for count in cumulative]


def tfc_edges(span: int, cumulative: list[int]) -> list[int]:
    return [span * count // cumulative[-1] for count in cumulative]


# Bytes of a word and their order, the first range, the smallest range, how it is divided.
DOCUMENTED = {
    "constriction": (4, "little", 2**64 - 1, 2**32, constriction_edges),
    "tfc": (2, "big", 2**32, 2**16 + 1, tfc_edges),
}


def reader(data: bytes, size: int, order, span: int, smallest: int, edges_of):
    """A function that reads one bin, given the cumulative counts."""
    padded = data + bytes(-len(data) % size)
    words = (int.from_bytes(padded[i : i + size], order) for i in range(0, len(padded), size))
    words = itertools.chain(words, itertools.repeat(0))
    point = next(words) << 8 * size | next(words)

    def read(cumulative):
        nonlocal span, point
        edges = edges_of(span, cumulative)
        i = next(i for i, edge in enumerate(edges[1:]) if point < edge)
        point -= edges[i]
        span = edges[i + 1] - edges[i]
        if span < smallest:
            span, point = span << 8 * size, point << 8 * size | next(words)
        return i

    return read


def decode_block(read, indexes: np.ndarray, t: tables.Tables) -> list[int]:
    order = sorted(range(len(indexes)), key=lambda i: (indexes[i], i))
    rows = {r: t.cdf[r, : t.length[r]].tolist() for r in set(indexes.tolist())}
    bins = {i: read(rows[int(indexes[i])]) for i in order}
    escaped = [i for i in order if bins[i] == t.length[indexes[i]] - 2]
    digits = dict.fromkeys(escaped, 1)
    growing = escaped
    while growing:
        growing = [i for i in growing if read([0, 1, 2])]
        for i in growing:
            digits[i] += 1
    values = dict.fromkeys(escaped, 1)
    for j in range(max(digits.values(), default=1) - 1):
        for i in escaped:
            if digits[i] - 1 > j:
                values[i] = 2 * values[i] + read([0, 1, 2])
    symbols = [int(t.offset[row]) + bins[i] for i, row in enumerate(indexes)]
    for i in escaped:
        distance, below = divmod(values[i] - 1, 2)
        symbols[i] = int(t.offset[indexes[i]]) - 1 - distance if below else symbols[i] + distance
    return symbols


def gaussian_bits(y: np.ndarray, scale: np.ndarray) -> float:
    """Information in bits of the integers y under round(N(0, scale**2))."""
    distance = np.abs(y)
    return -np.sum(np.log2(ndtr((0.5 - distance) / scale) - ndtr((-0.5 - distance) / scale)))


@each_coder
@pytest.mark.parametrize("scale", [0.2, 2.0, 50.0])
def test_coded_size_matches_the_entropy_of_gaussian_symbols(coder, scale):
    y = np.floor(scale * np.random.default_rng(0).standard_normal(100_000) + 0.5).astype(np.int32)
    t = tables.gaussian_tables(np.array([scale]))
    entropy, ideal = gaussian_bits(y, np.array(scale)), tables.ideal_bits(y, zeros(y.size), t)
    actual = 8 * len(coders.encode(y, zeros(y.size), t, coder))
    assert 0.999 * entropy <= actual <= 1.005 * entropy + 64
    assert ideal <= actual <= 1.001 * ideal + 64


@each_coder
@given(messages(), st.binary(max_size=64), st.integers(0), st.integers(0, 255), st.integers(0, 400))
@settings(deadline=None)
def test_any_bytes_give_symbols_or_one_kind_of_error(coder, message, noise, position, flip, end):
    symbols, indexes = message
    damaged = bytearray(coders.encode(symbols, indexes, GAUSSIAN, coder) + bytes(1))
    damaged[position % len(damaged)] ^= flip
    for data in (noise, bytes(damaged[:end])):
        try:
            found = coders.decode(data, indexes, GAUSSIAN, coder)
        except BitstreamError:
            continue
        assert found.dtype == np.int32 and found.shape == indexes.shape


def too_long() -> bytes:
    """A code of 70 digits: read into 64 bits they would wrap to an innocent symbol."""
    encoder = constriction.stream.queue.RangeEncoder()
    escape = constriction.stream.model.Categorical(np.array([255.0, 2**24 - 257]), perfect=False)
    encoder.encode(np.ones(1, np.int32), escape)
    code = np.repeat(np.array([1, 0], np.int32), [69, 70])
    encoder.encode(code, constriction.stream.model.Uniform(2))
    return encoder.get_compressed().astype("<u4").tobytes()


ESCAPES = (1, 2**16 - 1)  # Nearly every bin is an escape.


@pytest.mark.parametrize(
    "coder, data, count, first",
    [
        *((coder, b"\xff" * 80, 20, 0) for coder in PINNED),  # no encoder's state, endless code
        *((coder, bytes(20) + b"\x01", 3, 0) for coder in PINNED),  # not used up
        ("constriction", too_long(), 1, 0),
        *((coder, INT32.max, 1, 1) for coder in PINNED),  # beyond int32 in the row of the decoder
        *((coder, INT32.min, 1, -1) for coder in PINNED),
    ],
)
def test_impossible_streams_are_refused(coder, data, count, first):
    if coder == "tfc" and not HAS_TFC:
        pytest.skip("needs requirements-tfc.txt")
    if not isinstance(data, bytes):
        symbol = np.array([data], np.int32)
        data = assert_survives(symbol, zeros(1), row_tables(0, *ESCAPES), coder)
    with pytest.raises(BitstreamError, match="the coded data are damaged"):
        coders.decode(data, zeros(count), row_tables(first, *ESCAPES), coder)
