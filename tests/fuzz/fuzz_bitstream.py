"""Coverage-guided fuzzing of the container's reader. Not a part of the test suite.

  pip install atheris                      # Linux, Python 3.11 to 3.13
  python tests/fuzz/fuzz_bitstream.py -max_total_time=300 CORPUS

CORPUS is a folder that keeps what was found; it may be empty. Whatever the bytes are, the reader
must give a container or a BitstreamError of one line, and a container must pack to the same bytes.
Each input is tried a second time with magic, version and checksum that match, to get past them.
"""

import sys
import zlib

import atheris

with atheris.instrument_imports(include=["fa_hific_jax"]):
    from fa_hific_jax.codec import bitstream

LIMIT = 2**20


def sealed(data: bytes) -> bytes:
    checksum = zlib.crc32(data[9:], zlib.crc32(data[:5])).to_bytes(4, "little")
    return data[:5] + checksum + data[9:]


def check(data: bytes) -> None:
    try:
        container = bitstream.unpack(data, max_pixels=LIMIT)
    except bitstream.BitstreamError as error:
        if "\n" in str(error) or not str(error):
            raise AssertionError(f"not a sentence: {error!r}") from error
        return
    streams = container.z_stream + container.y_stream + container.alpha_stream
    assert container.width * container.height <= LIMIT
    assert data.endswith(streams) and len(data) <= len(streams) + 47
    assert bitstream.pack(container) == data


def test_one_input(data: bytes) -> None:
    check(data)
    if len(data) > 9:
        check(sealed(bitstream.MAGIC + bytes([bitstream.VERSION]) + data[5:]))


def seeds() -> list[bytes]:
    container = bitstream.Container(
        model_id=b"model id",
        coder="constriction",
        width=768,
        height=512,
        z_stream=b"z" * 5,
        y_stream=b"y" * 300,
        alpha_stream=b"",
        symbols_crc=0x01234567,
    )
    others = [
        {"alpha_stream": b"a"},
        {"gray": True, "metadata": b"m"},
        {"coder": "tfc", "width": 1, "height": 1, "z_stream": b""},
    ]
    return [bitstream.pack(container._replace(**fields)) for fields in [{}, *others]]


if __name__ == "__main__":
    for seed in seeds():
        test_one_input(seed)
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
