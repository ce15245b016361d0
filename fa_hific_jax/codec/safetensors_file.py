"""Writes and reads safetensors files, with few copies of large arrays.

The format is that of https://github.com/huggingface/safetensors: the length of a header in JSON,
the header, and the arrays. The package of that name copies them twice to write and once to read.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

# The package sorts arrays by these names in this order, then by their own names.
_DTYPES = {
    "I64": "<i8",
    "F32": "<f4",
    "I32": "<i4",
    "F16": "<f2",
    "U16": "<u2",
    "I16": "<i2",
    "I8": "|i1",
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns the file with these arrays, byte for byte that of `safetensors.numpy.save`."""
    little = {
        name: np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        for name, array in arrays.items()
    }
    kinds = {name: _NAMES[array.dtype.str] for name, array in little.items()}
    order = sorted(little, key=lambda name: (list(_DTYPES).index(kinds[name]), name))
    header, end = {}, 0
    for name in order:
        start, end = end, end + little[name].nbytes
        shape = list(little[name].shape)
        header[name] = {"dtype": kinds[name], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(little[name].data for name in order)])


def views(data: UInt8[np.ndarray, " n"]) -> dict[str, np.ndarray]:
    """Returns the arrays of a file as views of its bytes.

    Raises:
      ValueError: the bytes are not such a file, or have arrays of other types than models.
    """
    try:
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        entries = json.loads(data[8:start].tobytes())
        entries.pop("__metadata__", None)
        return {name: _view(data[start:], entry) for name, entry in entries.items()}
    except Exception as error:  # The header may be JSON of any kind.
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _view(data: UInt8[np.ndarray, " n"], entry: Mapping[str, Any]) -> np.ndarray:
    first, last = entry["data_offsets"]
    return data[first:last].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
