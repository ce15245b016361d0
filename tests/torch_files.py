"""Writes files as `torch.save` does, without PyTorch."""

import collections
import io
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


class Global:
    """Pickled as a name, `module.name`, whether or not it exists here."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class Call:
    """Pickled as a call of a name, with the state that it is given afterwards."""

    def __init__(self, module: str, name: str, *arguments: Any, state: Any = None):
        self.reduced = (Global(module, name), arguments, *([] if state is None else [state]))


class Tensor:
    """A strided view of a storage; by default of the whole array, which is the storage then."""

    def __init__(self, storage: np.ndarray, shape=None, strides=None, offset=0, dtype=None):
        self.storage = storage
        self.dtype = dtype or storage.dtype.newbyteorder("<").str
        self.offset, self.shape = offset, storage.shape if shape is None else shape
        steps = [int(np.prod(self.shape[i + 1 :])) for i in range(len(self.shape))]
        self.strides = tuple(steps) if strides is None else strides


class _StorageId(NamedTuple):
    tensor: Tensor


class _Pickler(pickle._Pickler):
    """Protocol 2, arrays as tensors; `storages` collects what they refer to."""

    dispatch = dict(pickle._Pickler.dispatch)

    def __init__(self, file, legacy: bool):
        super().__init__(file, protocol=2)
        self.legacy = legacy
        self.storages: list[np.ndarray] = []

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, _StorageId):
            return None
        array = obj.tensor.storage
        if not any(array is known for known in self.storages):
            self.storages.append(array)
        key = next(str(i) for i, known in enumerate(self.storages) if known is array)
        kind = Global("torch", STORAGES[obj.tensor.dtype])
        return ("storage", kind, key, "cpu", array.size, *([None] if self.legacy else []))

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Call):
            return obj.reduced
        if isinstance(obj, np.ndarray):
            obj = Tensor(obj)
        if isinstance(obj, Tensor):
            hooks = collections.OrderedDict()
            view = (_StorageId(obj), obj.offset, obj.shape, obj.strides, False, hooks)
            return (Global("torch._utils", "_rebuild_tensor_v2"), view)
        return NotImplemented

    def save_global_name(self, obj: Global) -> None:
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())

    def save_reduce(self, func, args, state=None, *rest, **named) -> None:
        if not isinstance(func, Global):
            super().save_reduce(func, args, state, *rest, **named)
            return
        self.save(func)
        self.save(args)
        self.write(pickle.REDUCE)
        if state is not None:
            self.save(state)
            self.write(pickle.BUILD)

    dispatch[Global] = save_global_name


def pickled(value: Any, legacy: bool = False) -> tuple[bytes, list[np.ndarray]]:
    """(the pickle of a value, the storages that it refers to)."""
    file = io.BytesIO()
    pickler = _Pickler(file, legacy)
    pickler.dump(value)
    return file.getvalue(), pickler.storages


def save(path: Path, value: Any) -> Path:
    """The zip format: data.pkl and a member for each storage."""
    data, storages = pickled(value)
    return archive(path, data, {f"data/{i}": array for i, array in enumerate(storages)})


def archive(path: Path, data: bytes, members: dict[str, Any], compression=zipfile.ZIP_STORED):
    """A zip archive as of `torch.save`, with this pickle and these members."""
    members = {"data.pkl": data, "byteorder": b"little"} | members
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
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
