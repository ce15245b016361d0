"""A reader for files of `torch.save` that needs no PyTorch and runs nothing from the file.

There are two formats: a zip archive with one member per storage (PyTorch 1.6 and later), and the
older sequence of pickles followed by raw storages. In both, a pickle describes the tensors.
`inert_pickle` reads it, so a file can neither call nor import anything.
"""

import io
import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fa_hific_jax.convert.inert_pickle import Record, load
from fa_hific_jax.errors import UserError, shown

INDEX_LIMIT = 1 << 24
"""Largest accepted pickle in bytes. It holds no weights; bad files must not fill the memory."""

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = b"\x80\x02\x8a\x0a" + _LEGACY_MAGIC.to_bytes(10, "little")
_OTHER_FILES = {
    b"version https://git-lfs": "a Git LFS pointer: fetch the file that it points to",
    b"<": "a web page: download the file itself",
    b"\x1f\x8b": "a gzip archive: decompress it first",
}
_DAMAGE = (
    ValueError, TypeError, LookupError, OverflowError, AttributeError, struct.error,
    zipfile.BadZipFile, NotImplementedError,
)  # fmt: skip

# Types of storages, with the types that NumPy reads their bytes as.
_STORAGES = dict(Double="f8", Float="f4", Half="f2", BFloat16="u2", Bool="u1")
_STORAGES |= dict(Long="i8", Int="i4", Short="i2", Char="i1", Byte="u1")
_DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()
_NUMBERS = "f8 f4 f2 i8 i4 i2 i1 u8 u4 u2 u1 b1".split()
_RECORDS = ("argparse.Namespace", "types.SimpleNamespace", "src.helpers.utils.Struct")


def read_torch_file(path: str | Path) -> Any:
    """Returns the object given to `torch.save`, with tensors and parameters as NumPy arrays.

    Arrays keep their shape and dtype (float16, 32 and 64, integers, bool); bfloat16 becomes
    float32. They are read-only. Most are views of the file, whose bytes are read when they are
    used. A `torch.Size` becomes a tuple; devices and dtypes become text. Instances of
    `argparse.Namespace`, of `types.SimpleNamespace` and of two kinds of classes in the PyTorch
    HiFiC (those in `default_config`, and `src.helpers.utils.Struct`) become `Record`s.

    Raises:
      UserError: the file is missing, damaged or of another kind, a tensor exceeds its storage, or
        `torch.load` could run code from the file. Nothing of the file has been run.
    """
    try:
        raw = np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is empty: fetch it again") from error
    start = raw[:64].tobytes()
    try:
        if start.startswith(b"PK\x03\x04"):
            return _read_zip(raw, path)
        if start.startswith(_LEGACY_START):
            return _read_legacy(raw)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except _DAMAGE as error:
        raise UserError(f"{path} is damaged or cut short: fetch it again") from error
    kinds = [kind for prefix, kind in _OTHER_FILES.items() if start.startswith(prefix)]
    if start[8:9] == b"{":
        kinds.append("a safetensors file")
    what = f" but {kinds[0]}" if kinds else ": name a checkpoint, usually .pt or .pth"
    raise UserError(f"{path} is not a file of torch.save{what}")


def _read_zip(raw: np.ndarray, path: str | Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
    root = next((n.partition("/")[0] for n in members if n.endswith("/data.pkl")), None)
    if root is None:
        raise UserError("it is a zip archive without data.pkl, so torch.save did not write it")
    if f"{root}/constants.pkl" in members:
        raise UserError(
            "it is a TorchScript program: save its state_dict() with torch.save instead"
        )
    content = {name.removeprefix(f"{root}/"): _stored(raw, members[name]) for name in members}
    index = content["data.pkl"]
    if index.size > INDEX_LIMIT:
        raise UserError(f"its pickle has {index.size} bytes, more than any list of tensors needs")
    order = ">" if content.get("byteorder", raw[:0]).tobytes() == b"big" else "<"
    places = {key.removeprefix("data/"): place for key, place in content.items()}
    return _Tensors(places, raw.size, order).load(io.BytesIO(index.tobytes()))


def _stored(raw: np.ndarray, info: zipfile.ZipInfo) -> np.ndarray:
    """Returns the bytes of a member, which torch.save neither compresses nor encrypts."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise UserError("its zip archive is compressed or encrypted, unlike those of torch.save")
    header = raw[info.header_offset : info.header_offset + 30].tobytes()
    name_length, extra_length = struct.unpack("<26xHH", header)
    return _slice(raw, info.header_offset + 30 + name_length + extra_length, info.file_size)


def _slice(raw: np.ndarray, start: int, size: int) -> np.ndarray:
    if size < 0 or start + size > raw.size:
        raise ValueError("bytes beyond the end")
    return raw[start : start + size]


def _read_legacy(raw: np.ndarray) -> Any:
    head = raw[:INDEX_LIMIT].tobytes()
    stream, first = io.BytesIO(head), _Tensors(None, raw.size)
    for _ in range(3):  # The magic number, the protocol version, the writer's machine.
        first.load(stream)
    start = stream.tell()
    # The storages follow the pickle that refers to them. The first reading finds their types, from
    # which the bytes of each storage follow.
    first.load(stream)
    keys = first.load(stream)
    places, position = {}, stream.tell()
    for key in [_is(key, str) for key in keys]:
        (count,) = struct.unpack("<q", raw[position : position + 8].tobytes())
        item = np.dtype(_STORAGES[first.kinds[key]]).itemsize
        places[key] = _slice(raw, position + 8, count * item)
        position += 8 + places[key].size
    return _Tensors(places, raw.size).load(io.BytesIO(head[start:]))


class _Tensors:
    """The storages of a file, and the tensors that are views of them.

    `places` has the bytes of each storage by key, in the byte order `order`. If it is None, only
    the type of each storage is found (`kinds`), and there are no tensors.
    """

    def __init__(self, places: Mapping[str, np.ndarray] | None, file_size: int, order: str = "<"):
        self.places, self.file_size, self.order = places, file_size, order
        self.kinds: dict[str, str] = {}
        self.values: dict[tuple[str, str], np.ndarray] = {}

    def load(self, stream: io.BytesIO) -> Any:
        """Returns the next object of a stream."""
        return load(stream, self.find, self.storage)

    def find(self, name: str) -> Any:
        """Returns what stands for a name in the pickle."""
        if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            return self.tensor
        if name in _RECORDS or name.startswith("default_config."):
            return lambda *_: Record()
        if name not in _NAMES:
            raise UserError(
                f"the file refers to {shown(name[:100])}, which could run code: save it again with "
                "tensors and plain values only"
            )
        return _NAMES[name]

    def storage(self, identifier: Any) -> np.ndarray | None:
        """Returns the values of the storage with this persistent id."""
        what, kind, key, _, count, *view = identifier
        if what != "storage" or any(view):
            raise ValueError("an unknown persistent id")
        self.kinds[_is(key, str)] = _is(kind, str)
        if self.places is None:
            return None
        if (key, kind) not in self.values:  # Each is converted once.
            self.values[key, kind] = self._converted(self.places[key], kind, count)
        return self.values[key, kind]

    def _converted(self, data: np.ndarray, kind: str, count: int) -> np.ndarray:
        stored = np.dtype(self.order + _STORAGES[kind])
        values = data[: count * stored.itemsize].view(stored)
        if kind == "Bool":
            return values != 0
        if kind == "BFloat16":  # The upper half of a float32.
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(stored.newbyteorder("="), copy=False)

    def tensor(self, values: Any, offset, shape, strides, *_) -> np.ndarray | None:
        """Returns a view of a storage; offset and strides count values."""
        if self.places is None:
            return None
        # A stride of 0 repeats values at no cost here, but whoever copies the array pays for it.
        if math.prod(shape) * values.itemsize > 2 * self.file_size:
            raise ValueError("a tensor that is larger than the whole file")
        size, steps = values.itemsize, [stride * values.itemsize for stride in strides]
        # NumPy refuses what reaches beyond the storage.
        array = np.ndarray(shape, values.dtype, values, offset * size, steps)
        array.flags.writeable = False
        return array


def _is(value: Any, *kinds: type) -> Any:
    """Returns the value, which must be of one of these types.

    A deeply nested tuple as a key, for example, would overflow the C stack when it is hashed.
    """
    if type(value) not in kinds:
        raise TypeError("a value of another type than PyTorch writes")
    return value


def _scalar(dtype, data):
    if _is(dtype, Record)["code"] not in _NUMBERS:
        raise ValueError("a scalar that is not a number")
    return np.frombuffer(data, dtype["code"], count=1).item()


# What stands for the names that a pickle may contain, with the function that runs in place of each.
_NAMES = {
    **{f"{m}.{kind}Storage": kind for kind in _STORAGES for m in ("torch", "torch.cuda")},
    **{f"torch.{name}": name for name in _DTYPES},
    "collections.OrderedDict": lambda pairs=(): {_is(key, str): value for key, value in pairs},
    "torch._utils._rebuild_parameter": lambda data, requires_grad, hooks: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, grad, hooks, state: data,
    "torch.Size": lambda size: tuple(_is(size, tuple, list)),
    "torch.device": lambda *parts: ":".join(str(_is(part, str, int)) for part in parts),
    # Pickle protocol 2 writes bytes as Latin-1 text.
    "_codecs.encode": lambda text, encoding: _is(text, str).encode("latin1"),
    "numpy.dtype": lambda code, *_: Record(code=code),
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
}
