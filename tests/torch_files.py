"""Writes files as `torch.save` does, without PyTorch."""

import collections
import itertools
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

STORAGES = {
    "<f8": "DoubleStorage",
    "<f4": "FloatStorage",
    "<f2": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "<i8": "LongStorage",
    "<i4": "IntStorage",
    "|b1": "BoolStorage",
}


class Global(NamedTuple):
    """Pickled as a name, `module.name`, whether or not it exists here."""

    module: str
    name: str


class Call:
    """Pickled as a call of a name, with the state that it is given afterwards."""

    def __init__(self, module: str, name: str, *arguments: Any, state: Any = None):
        self.function, self.arguments, self.state = Global(module, name), arguments, state


class Tensor:
    """A strided view of a storage; by default of the whole array, which is the storage then."""

    def __init__(self, storage: np.ndarray, shape=None, strides=None, offset=0, dtype=None):
        self.storage = storage
        self.dtype = dtype or storage.dtype.newbyteorder("<").str
        self.offset, self.shape = offset, storage.shape if shape is None else shape
        steps = [int(np.prod(self.shape[i + 1 :])) for i in range(len(self.shape))]
        self.strides = tuple(steps) if strides is None else strides


def pickled(value: Any, legacy: bool = False) -> tuple[bytes, list[np.ndarray]]:
    """(the pickle of a value, the storages that it refers to)."""
    storages: list[np.ndarray] = []

    def tensor(of: Tensor) -> bytes:
        if not any(of.storage is known for known in storages):
            storages.append(of.storage)
        key = next(str(i) for i, known in enumerate(storages) if known is of.storage)
        kind, view = Global("torch", STORAGES[of.dtype]), [None] if legacy else []
        place = code(("storage", kind, key, "cpu", of.storage.size, *view)) + b"Q"
        hooks = collections.OrderedDict()
        rest = map(code, (of.offset, of.shape, of.strides, False, hooks))
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + place + b"".join(rest) + b"tR"

    def code(value: Any) -> bytes:
        match value:
            case Global():
                return f"c{value.module}\n{value.name}\n".encode()
            case Call():
                call = code(value.function) + code(value.arguments) + b"R"
                return call if value.state is None else call + code(value.state) + b"b"
            case Tensor() | np.ndarray():
                return tensor(value if isinstance(value, Tensor) else Tensor(value))
            case dict():
                ordered = isinstance(value, collections.OrderedDict)
                start = b"ccollections\nOrderedDict\n)R(" if ordered else b"}("
                return start + b"".join(map(code, itertools.chain(*value.items()))) + b"u"
            case list() | tuple():
                start, end = (b"](", b"e") if isinstance(value, list) else (b"(", b"t")
                return start + b"".join(map(code, value)) + end
        return pickle.dumps(value, 2)[2:-1]  # without the protocol and the end

    return b"\x80\x02" + code(value) + b".", storages


def save(path: Path, value: Any) -> Path:
    """The zip format: data.pkl and a member for each storage."""
    data, storages = pickled(value)
    return archive(path, data, {f"data/{i}": array for i, array in enumerate(storages)})


def archive(path: Path, data: bytes, members: dict[str, Any], compression=zipfile.ZIP_STORED):
    """A zip archive as of `torch.save`, with this pickle and these members."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in ({"data.pkl": data, "byteorder": b"little"} | members).items():
            file.writestr(f"archive/{name}", bytes(content))
    return path


def save_legacy(path: Path, value: Any) -> Path:
    """The format before PyTorch 1.6: pickles, then the storages with their lengths."""
    data, storages = pickled(value, legacy=True)
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, machine)]
    keys = pickle.dumps([str(i) for i in range(len(storages))], 2)
    raw = [struct.pack("<q", array.size) + array.tobytes() for array in storages]
    path.write_bytes(b"".join([*head, data, keys, *raw]))
    return path
