"""Coded streams: round trip of any int32, size against theory, the format, damaged data."""

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

SCALE_TABLE = np.exp(np.linspace(np.log(0.11), np.log(256), 64)).astype(np.float32)
GAUSSIAN = tables.gaussian_tables(tables.middle_scales(SCALE_TABLE))
INT32 = np.iinfo(np.int32)


def row_tables(first: int, *counts: int) -> tables.Tables:
    """Tables of one row with these counts, the last that of the escape bin."""
    cdf = np.cumsum([0, *counts], dtype=np.int32)[None]
    return tables.Tables(cdf, np.array([first], np.int32), np.array([cdf.size], np.int32))


def zeros(n: int) -> np.ndarray:
    return np.zeros(n, np.int32)


@st.composite
def messages(draw):
    """Symbols and indexes of one length: likely symbols, any int32, its extremes."""
    n = draw(st.integers(0, 60))
    symbol = st.integers(-4, 4) | st.integers(-2000, 2000) | st.integers(INT32.min, INT32.max)
    symbols = draw(hnp.arrays(np.int32, n, elements=symbol))
    return symbols, draw(hnp.arrays(np.int32, n, elements=st.integers(0, 63)))


@given(messages())
def test_any_symbols_survive_coding(message):
    symbols, indexes = message
    data = coders.encode(symbols, indexes, GAUSSIAN)
    np.testing.assert_array_equal(coders.decode(data, indexes, GAUSSIAN), symbols)
    assert 8 * len(data) <= tables.ideal_bits(symbols, indexes, GAUSSIAN) + 64


@pytest.mark.parametrize("first", [INT32.min, -1, 0, INT32.max - 1])
def test_the_extremes_of_int32_survive_wherever_the_row_lies(first):
    t = row_tables(first, 2**15, 2**14, 2**14)
    symbols = np.array([INT32.min, INT32.max, 0, -1, 1, INT32.min + 1], np.int32)
    data = coders.encode(symbols, zeros(6), t)
    np.testing.assert_array_equal(coders.decode(data, zeros(6), t), symbols)


def test_no_symbols_take_no_bytes():
    assert coders.encode(zeros(0), zeros(0), GAUSSIAN) == b""
    assert coders.decode(b"", zeros(0), GAUSSIAN).shape == (0,)


def test_the_bytes_of_a_stream_do_not_change():
    cdf = np.array([[0, 60000, 65535, 65536], [0, 9, 40000, 65536]], np.int32)
    t = tables.Tables(cdf, np.array([0, -5], np.int32), np.array([4, 4], np.int32))
    symbols = np.array([0, -5, 1, 0, 500, -70000, -4, 1, INT32.max, INT32.min], np.int32)
    indexes = np.array([0, 1, 0, 0, 0, 1, 1, 0, 1, 0], np.int32)
    # What version 1 of the format gives: other bytes are another version.
    expected = "2606b3e8afbcbfc5f52a120873fdffcf57eeffffd298f27e00d85df600a615"
    assert coders.encode(symbols, indexes, t).hex() == expected
    assert range_decode(bytes.fromhex(expected), indexes, t) == symbols.tolist()


def range_decode(data: bytes, indexes: np.ndarray, t: tables.Tables) -> list[int]:
    """Decoder in plain integers, written from docs/bitstream.md alone."""
    data = data + bytes(-len(data) % 4)
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
    words = [*words, 0, 0][: max(2, len(words))]
    span, point, used = 2**64 - 1, words[0] << 32 | words[1], 2

    def read(cumulative):
        nonlocal span, point, used
        step = span >> 24
        q = point // step
        i = next(i for i, c in enumerate(cumulative[1:]) if q < c)
        point -= step * cumulative[i]
        span = step * (cumulative[i + 1] - cumulative[i])
        if span < 2**32:
            span <<= 32
            point = point << 32 | (words[used] if used < len(words) else 0)
            used += 1
        return i

    order = sorted(range(len(indexes)), key=lambda i: (indexes[i], i))
    rows = {r: [256 * int(c) for c in t.cdf[r, : t.length[r]]] for r in set(indexes.tolist())}
    bins = {i: read(rows[int(indexes[i])]) for i in order}
    escaped = [i for i in order if bins[i] == t.length[indexes[i]] - 2]
    digits = dict.fromkeys(escaped, 1)
    growing = escaped
    while growing:
        growing = [i for i in growing if read([0, 2**23, 2**24])]
        for i in growing:
            digits[i] += 1
    values = dict.fromkeys(escaped, 1)
    for j in range(max(digits.values(), default=1) - 1):
        for i in escaped:
            if digits[i] - 1 > j:
                values[i] = 2 * values[i] + read([0, 2**23, 2**24])
    symbols = [int(t.offset[row]) + bins[i] for i, row in enumerate(indexes)]
    for i in escaped:
        distance, below = divmod(values[i] - 1, 2)
        symbols[i] = int(t.offset[indexes[i]]) - 1 - distance if below else symbols[i] + distance
    return symbols


@given(messages())
@settings(max_examples=50)
def test_a_decoder_written_from_the_specification_agrees(message):
    symbols, indexes = message
    data = coders.encode(symbols, indexes, GAUSSIAN)
    assert range_decode(data, indexes, GAUSSIAN) == symbols.tolist()


def gaussian_bits(y: np.ndarray, scale: np.ndarray) -> float:
    """Information in bits of the integers y under round(N(0, scale**2))."""
    distance = np.abs(y)
    return -np.sum(np.log2(ndtr((0.5 - distance) / scale) - ndtr((-0.5 - distance) / scale)))


@pytest.mark.parametrize("scale", [0.2, 0.5, 2.0, 16.0, 50.0])
def test_coded_size_matches_the_entropy_of_gaussian_symbols(scale):
    y = np.floor(scale * np.random.default_rng(0).standard_normal(100_000) + 0.5).astype(np.int32)
    t = tables.gaussian_tables(np.array([scale]))
    entropy, ideal = gaussian_bits(y, np.array(scale)), tables.ideal_bits(y, zeros(y.size), t)
    actual = 8 * len(coders.encode(y, zeros(y.size), t))
    assert 0.999 * entropy <= actual <= 1.005 * entropy + 64
    assert ideal <= actual <= 1.001 * ideal + 64


def test_coded_size_matches_the_entropy_when_scales_are_rounded_to_the_table():
    rng = np.random.default_rng(1)
    scale = np.exp(rng.uniform(np.log(0.2), np.log(50), 200_000)).astype(np.float32)
    y = np.floor(scale * rng.standard_normal(scale.size) + 0.5).astype(np.int32)
    indexes = tables.scale_indexes(scale, SCALE_TABLE)
    actual = 8 * len(coders.encode(y, indexes, GAUSSIAN))
    entropy = gaussian_bits(y, scale.astype(np.float64))
    assert 0.999 * entropy <= actual <= 1.002 * entropy + 64


@pytest.mark.parametrize("count", [1, 3, 200])
def test_counts_are_coded_without_rounding(count):
    n = 100_000
    t = row_tables(-1, 2**16 - count - 1, count, 1)
    data = coders.encode(zeros(n), zeros(n), t)
    # One count of 2**24 more, as the coder would round by itself, is 560 bits at count 1.
    assert abs(8 * len(data) - n * (16 - np.log2(count))) <= 64 + 1e-4 * n


def test_an_escape_costs_its_bin_and_two_bits_per_doubling():
    t = row_tables(0, 2**15, 2**14, 2**14)
    symbols = np.full(1000, 2 + 2**20, np.int32)
    ideal = tables.ideal_bits(symbols, zeros(1000), t)
    assert ideal == 1000 * (2 + 2 * 21 + 1)
    assert ideal <= 8 * len(coders.encode(symbols, zeros(1000), t)) <= ideal + 128


@given(
    st.binary(max_size=64), hnp.arrays(np.int32, st.integers(0, 80), elements=st.integers(0, 63))
)
def test_arbitrary_bytes_give_symbols_or_one_kind_of_error(data, indexes):
    try:
        symbols = coders.decode(data, indexes, GAUSSIAN)
    except BitstreamError:
        return
    assert symbols.dtype == np.int32 and symbols.shape == indexes.shape


@given(messages(), st.data())
def test_a_damaged_stream_gives_symbols_or_one_kind_of_error(message, data):
    symbols, indexes = message
    damaged = bytearray(coders.encode(symbols, indexes, GAUSSIAN) + bytes(1))
    position = data.draw(st.integers(0, len(damaged) - 1))
    damaged[position] ^= data.draw(st.integers(0, 255))
    try:
        decoded = coders.decode(bytes(damaged[: data.draw(st.integers(0, 400))]), indexes, GAUSSIAN)
    except BitstreamError:
        return
    assert decoded.dtype == np.int32 and decoded.shape == indexes.shape


@pytest.mark.parametrize(
    "data, indexes",
    [
        (b"\xff" * 8, zeros(20)),  # a state no encoder reaches
        (bytes(20) + b"\x01", zeros(3)),  # not used up
    ],
)
def test_impossible_streams_are_refused(data, indexes):
    t = row_tables(0, 1, 2**16 - 1)
    with pytest.raises(BitstreamError, match="the coded data are damaged or belong to another"):
        coders.decode(data, indexes, t)


def test_an_escape_code_longer_than_any_symbol_needs_is_refused():
    t = row_tables(0, 1, 2**16 - 1)
    valid = coders.encode(np.array([INT32.min], np.int32), zeros(1), t)
    encoder = constriction.stream.queue.RangeEncoder()
    escape = constriction.stream.model.Categorical(np.array([255.0, 2**24 - 257]), perfect=False)
    encoder.encode(np.ones(1, np.int32), escape)
    # 70 digits: read into 64 bits they would wrap to an innocent symbol.
    code = np.repeat(np.array([1, 0], np.int32), [69, 70])
    encoder.encode(code, constriction.stream.model.Uniform(2))
    assert coders.decode(valid, zeros(1), t) == INT32.min
    with pytest.raises(BitstreamError, match="the coded data are damaged"):
        coders.decode(encoder.get_compressed().astype("<u4").tobytes(), zeros(1), t)


@pytest.mark.parametrize("symbol, shift", [(INT32.max, 1), (INT32.min, -1)])
def test_a_symbol_beyond_int32_is_refused(symbol, shift):
    data = coders.encode(np.array([symbol], np.int32), zeros(1), row_tables(0, 1, 2**16 - 1))
    with pytest.raises(BitstreamError, match="the coded data are damaged"):
        coders.decode(data, zeros(1), row_tables(shift, 1, 2**16 - 1))


def test_a_stream_of_zero_bytes_alone_is_empty_and_decodes():
    t = row_tables(0, 2**15, 2**15)
    assert coders.encode(zeros(10_000), zeros(10_000), t) == b""
    np.testing.assert_array_equal(coders.decode(b"", zeros(10_000), t), 0)


def test_wrong_indexes_are_noticed_when_the_stream_is_not_used_up():
    indexes = np.full(2000, 40, np.int32)
    data = coders.encode(np.arange(2000, dtype=np.int32) % 7, indexes, GAUSSIAN)
    with pytest.raises(BitstreamError, match="belong to another model"):
        coders.decode(data, zeros(2000), GAUSSIAN)
