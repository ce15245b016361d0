"""Files of arrays, against the package that defines them."""

import numpy as np
import pytest
from safetensors.numpy import load, save

from fa_hific_jax.codec import safetensors_file

RNG = np.random.default_rng(0)
ARRAYS = {
    f"{dtype}/{name}": RNG.integers(0, 99, shape).astype(dtype)
    for dtype in ("int16", "float16", "int64", "uint16", "float32", "int32")
    for name, shape in (("b", (3, 5)), ("a", (7,)), ("ä", (1, 0, 2)), ("Z", (2, 2, 2)))
} | {"transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T}


@pytest.mark.parametrize("arrays", [ARRAYS, {}, dict(reversed(ARRAYS.items()))])
def test_the_bytes_are_those_of_the_package(arrays):
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    big_endian = {name: a.astype(a.dtype.newbyteorder(">")) for name, a in arrays.items()}
    for given in (arrays, big_endian):
        assert safetensors_file.to_bytes(given) == save(contiguous)


def test_what_the_package_writes_is_read_as_the_package_reads_it():
    data = save({n: np.ascontiguousarray(a) for n, a in ARRAYS.items()}, {"note": "any"})
    read, expected = safetensors_file.views(np.frombuffer(data, np.uint8)), load(data)
    assert read.keys() == expected.keys()
    for name, array in expected.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"1",
        b"[" * 10**5,
        b'{"a":1}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}',
        b'{"a":{"dtype":"F8","shape":[4],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[2,' + b"9" * 99 + b"]}}",
    ],
    ids=lambda header: header[:20].decode(),
)
def test_anything_else_is_a_value_error(header):
    data = len(header).to_bytes(8, "little") + header + bytes(7)
    with pytest.raises(ValueError, match=": "):
        safetensors_file.views(np.frombuffer(data, np.uint8))
