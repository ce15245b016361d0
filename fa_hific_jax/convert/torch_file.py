"""Files of `torch.save`, read without PyTorch and without running what they contain.

Two formats: a zip archive with one member per storage (PyTorch 1.6 and later), and the older
sequence of pickles followed by raw storages. In both a pickle tells which tensors there are; it is
read by `inert_pickle`, so a file can neither call nor import anything.
"""

import io
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fa_hific_jax.convert.inert_pickle import Global, Names, Record, load
from fa_hific_jax.errors import UserError

INDEX_LIMIT = 1 << 24
"""Bytes of the pickle, which holds no weights: a bound on the memory that a bad file may cost."""

_DTYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "bool",
}
_STORAGES = {
    f"{module}.{name}": dtype
    for name, dtype in _DTYPES.items()
    for module in ("torch", "torch.cuda")
}
_DTYPE_NAMES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()
_MENTIONED = _STORAGES | {f"torch.{name}": name for name in _DTYPE_NAMES}
_NUMBERS = "f8 f4 f2 i8 i4 i2 i1 u8 u4 u2 u1 b1".split()
_INERT = {"argparse.Namespace", "types.SimpleNamespace", "src.helpers.utils.Struct"}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = b"\x80\x02\x8a\x0a" + _LEGACY_MAGIC.to_bytes(10, "little")
_OTHER_FILES = (
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file that it stands for"),
    (b"<", "a web page: download the file itself"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
)
_DAMAGE = (
    ValueError, TypeError, LookupError, OverflowError, AttributeError, struct.error,
    zipfile.BadZipFile, NotImplementedError,
)  # fmt: skip


def read_torch_file(path: str | Path) -> Any:
    """What was given to `torch.save`: containers, numbers and text, with tensors as NumPy arrays.

    Arrays keep shape and dtype (float16, 32, 64, integers, bool; bfloat16 becomes float32) and are
    read-only; most are views of the file, whose bytes are read when they are used. Parameters are
    arrays too, `torch.Size` is a tuple, devices and dtypes are text. Instances of
    `argparse.Namespace`, of the classes in `default_config` and of `src.helpers.utils.Struct` (the
    PyTorch port of HiFiC) become `inert_pickle.Record`s with their state.

    Raises:
      UserError: the file is missing, of another kind or damaged, a tensor exceeds its storage, or
        the file would run code. Nothing of it has been run then.
    """
    raw = _bytes_of(path)
    try:
        if raw[:4].tobytes() == b"PK\x03\x04":
            return _read_zip(raw, path)
        if raw[: len(_LEGACY_START)].tobytes() == _LEGACY_START:
            return _read_legacy(raw)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except _DAMAGE as error:
        raise UserError(f"{path} is damaged or cut short: fetch it again") from error
    kind = _kind(raw[:64].tobytes()) or ": name a checkpoint, mostly .pt or .pth"
    raise UserError(f"{path} is no file of torch.save{kind}")


def _bytes_of(path: str | Path) -> np.ndarray:
    file = Path(path)
    try:
        if file.is_dir():
            raise UserError(f"{path} is a folder: name a file of torch.save")
        if not file.stat().st_size:
            raise UserError(f"{path} is empty: fetch it again")
        return np.memmap(file, np.uint8, mode="r")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _kind(start: bytes) -> str:
    for prefix, kind in _OTHER_FILES:
        if start.startswith(prefix):
            return f" but {kind}"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < INDEX_LIMIT:
        return " but a safetensors file"
    return ""


class _Storages:
    """What the tensors of a file are views of: bytes by key, converted once."""

    def __init__(self, places: Mapping[str, np.ndarray], order: str, file_size: int):
        self.places, self.order, self.file_size = places, order, file_size
        self.values: dict[tuple[str, str], np.ndarray] = {}

    def storage(self, identifier: Any) -> np.ndarray:
        dtype, key, count = _identified(identifier)
        if (key, dtype) not in self.values:
            self.values[key, dtype] = _values(self.places[key], dtype, count, self.order)
        return self.values[key, dtype]

    def tensor(self, values, offset, shape, strides, *_) -> np.ndarray:
        return _tensor(values, offset, shape, strides, self.file_size)


class _Dtypes:
    """Stands in for `_Storages` where these are not known yet, and learns their dtypes."""

    def __init__(self):
        self.found: dict[str, str] = {}

    def storage(self, identifier: Any) -> None:
        dtype, key, _ = _identified(identifier)
        self.found[key] = dtype

    def tensor(self, *_) -> None:
        return None


def _read_zip(raw: np.ndarray, path: str | Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
    root = next((n.partition("/")[0] for n in members if n.endswith("/data.pkl")), None)
    if root is None:
        raise UserError("a zip archive without data.pkl, so not written by torch.save")
    if f"{root}/constants.pkl" in members:
        raise UserError("a TorchScript program: save its state_dict() with torch.save instead")
    if sum(info.file_size for info in members.values()) > raw.size:
        raise UserError("the zip archive declares more bytes than it has")
    content = {name.removeprefix(f"{root}/"): _stored(raw, members[name]) for name in members}
    index = content["data.pkl"]
    if index.size > INDEX_LIMIT:
        raise UserError(f"its pickle has {index.size} bytes, more than any index of tensors")
    big = "byteorder" in content and content["byteorder"].tobytes() == b"big"
    places = {key.removeprefix("data/"): place for key, place in content.items()}
    storages = _Storages(places, ">" if big else "<", raw.size)
    return _load(io.BytesIO(index.tobytes()), storages)


def _stored(raw: np.ndarray, info: zipfile.ZipInfo) -> np.ndarray:
    """The bytes of a member; torch.save compresses and encrypts none."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise UserError("the zip archive is compressed or encrypted, as torch.save writes none")
    header = raw[info.header_offset : info.header_offset + 30].tobytes()
    name_length, extra_length = struct.unpack("<26xHH", header)
    start = info.header_offset + 30 + name_length + extra_length
    return _slice(raw, start, info.file_size)


def _slice(raw: np.ndarray, start: int, size: int) -> np.ndarray:
    if size < 0 or start + size > raw.size:
        raise ValueError("bytes beyond the end")
    return raw[start : start + size]


def _read_legacy(raw: np.ndarray) -> Any:
    head = raw[:INDEX_LIMIT].tobytes()
    stream, dtypes = io.BytesIO(head), _Dtypes()
    for _ in range(3):  # magic number, protocol version, the writer's machine
        _load(stream, dtypes)
    start = stream.tell()
    # The storages follow the pickle that refers to them: read it first for their names alone.
    _load(stream, dtypes)
    keys = _load(stream, dtypes)
    places, position = {}, stream.tell()
    for key in keys:
        (count,) = struct.unpack("<q", raw[position : position + 8].tobytes())
        places[key] = _slice(raw, position + 8, count * _item_size(dtypes.found[key]))
        position += 8 + places[key].size
    return _load(io.BytesIO(head[start:]), _Storages(places, "<", raw.size))


def _item_size(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _values(data: np.ndarray, dtype: str, count: int, order: str) -> np.ndarray:
    size = count * _item_size(dtype)
    if count < 0 or size > data.size:
        raise UserError(f"a storage of {count} values has {data.size} bytes, not {size}")
    data = data[:size]
    if dtype == "bool":
        return data != 0
    if dtype == "bfloat16":  # the upper half of a float32
        return (data.view(f"{order}u2").astype(np.uint32) << 16).view(np.float32)
    values = data.view(f"{order}{dtype}")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _identified(identifier: Any) -> tuple[str, str, int]:
    """(dtype, key, number of values) in the persistent id of a storage."""
    kind, dtype, key, _, count, *view = identifier
    if kind != "storage" or dtype not in _STORAGES.values() or any(view):
        raise ValueError("an unknown persistent id")
    if not isinstance(key, str) or type(count) is not int:
        raise TypeError("a storage without name or size")
    return dtype, key, count


def _load(stream: io.BytesIO, storages: _Storages | _Dtypes) -> Any:
    """The next object of a stream, its tensors views of the storages."""
    names = Names(_functions(storages.tensor), _MENTIONED, _is_inert)
    return load(stream, names, storages.storage)


def _functions(rebuild: Callable[..., Any]) -> Mapping[str, Callable[..., Any]]:
    return {
        "collections.OrderedDict": _ordered,
        "torch._utils._rebuild_tensor": rebuild,
        "torch._utils._rebuild_tensor_v2": rebuild,
        "torch._utils._rebuild_parameter": lambda data, requires_grad, hooks: data,
        "torch._utils._rebuild_parameter_with_state": lambda data, grad, hooks, state: data,
        "torch.Size": lambda size: tuple(size),
        "torch.device": lambda *parts: ":".join(str(part) for part in parts),
        "_codecs.encode": _latin1,
        "numpy.dtype": lambda *arguments: Record("numpy.dtype", arguments),
        "numpy.core.multiarray.scalar": _scalar,
        "numpy._core.multiarray.scalar": _scalar,
    }


def _is_inert(name: Global) -> bool:
    return name.module == "default_config" or str(name) in _INERT


def _ordered(pairs: Any = ()) -> dict:
    if any(not isinstance(key, str) for key, _ in pairs):
        raise TypeError("a key that is no text")
    return dict(pairs)


def _latin1(text, encoding) -> bytes:
    """How protocol 2 spells bytes."""
    if encoding != "latin1":
        raise ValueError("another encoding")
    return text.encode("latin1")


def _scalar(dtype, data):
    if dtype.kind != "numpy.dtype" or dtype.arguments[0] not in _NUMBERS:
        raise ValueError("a scalar that is no number")
    return np.frombuffer(data, dtype.arguments[0], count=1).item()


def _tensor(values, offset, shape, strides, file_size: int) -> np.ndarray:
    """A view of a storage; strides count values and are not negative, as in PyTorch."""
    if not isinstance(values, np.ndarray) or not isinstance(shape, tuple):
        raise TypeError("a tensor without storage or shape")
    numbers = (offset, *shape, *strides)
    if any(type(number) is not int or number < 0 for number in numbers):
        raise TypeError("a shape that is no tuple of sizes")
    if len(shape) != len(strides) or len(shape) > 32:
        raise ValueError("a shape without its strides")
    count = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if count and last >= values.size:
        raise UserError(
            f"a tensor of shape {shape} needs {last + 1} values, its storage has {values.size}"
        )
    # Stride 0 repeats values for free here, but not for who copies them.
    if count * values.itemsize > 2 * file_size:
        raise UserError(f"a tensor of shape {shape} is larger than the whole file")
    if not count:
        return np.zeros(shape, values.dtype)
    byte_strides = [stride * values.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(values[offset:], shape, byte_strides, writeable=False)
