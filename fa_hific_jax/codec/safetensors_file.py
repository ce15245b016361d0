"""Writes and reads safetensors files, with few copies of large arrays.

The format is that of https://github.com/huggingface/safetensors: the length of a header in JSON,
the header, and the arrays. The package of that name copies them twice to write and once to read.
"""

import json
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

# The package sorts arrays by these types in this order, then by their names.
_NAMES = {
    "<i8": "I64",
    "<f4": "F32",
    "<i4": "I32",
    "<f2": "F16",
    "<u2": "U16",
    "<i2": "I16",
    "|i1": "I8",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


def to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns the file with these arrays, byte for byte that of `safetensors.numpy.save`."""
    little = {
        name: np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        for name, array in arrays.items()
    }
    order = sorted(little, key=lambda name: (list(_NAMES).index(little[name].dtype.str), name))
    header, end = {}, 0
    for name in order:
        array, start, end = little[name], end, end + little[name].nbytes
        dtype, shape = _NAMES[array.dtype.str], list(array.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(little[name].data for name in order)])


def views(data: UInt8[np.ndarray, " n"]) -> dict[str, np.ndarray]:
    """Returns the arrays of a file as views of its bytes.

    Raises a ValueError if the bytes are not such a file, or have other types than models.
    """
    arrays = {}
    try:
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        entries = json.loads(data[8:start].tobytes())
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            first, last = entry["data_offsets"]
            array = data[start:][first:last].view(_DTYPES[entry["dtype"]])
            arrays[name] = array.reshape(entry["shape"])
    except Exception as error:  # The header may be JSON of any kind.
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return arrays
