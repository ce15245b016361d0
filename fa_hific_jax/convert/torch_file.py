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
_TORCH_DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()
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

    def member(name: str) -> np.ndarray:
        return _stored(raw, members[f"{root}/{name}"])

    order = (
        ">" if f"{root}/byteorder" in members and member("byteorder").tobytes() == b"big" else "<"
    )
    index = member("data.pkl")
    if index.size > INDEX_LIMIT:
        raise UserError(f"its pickle has {index.size} bytes, more than any index of tensors")
    storages: dict[tuple[str, str], np.ndarray] = {}

    def storage(dtype: str, key: str, count: int) -> np.ndarray:
        if (key, dtype) not in storages:
            storages[key, dtype] = _values(member(f"data/{key}"), dtype, count, order)
        return storages[key, dtype]

    return _load(io.BytesIO(index.tobytes()), storage, raw.size)


def _stored(raw: np.ndarray, info: zipfile.ZipInfo) -> np.ndarray:
    """The bytes of a member; torch.save compresses and encrypts none."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise UserError("the zip archive is compressed or encrypted, as torch.save writes none")
    header = raw[info.header_offset : info.header_offset + 30].tobytes()
    name_length, extra_length = struct.unpack("<26xHH", header)
    start = info.header_offset + 30 + name_length + extra_length
    if start + info.file_size > raw.size:
        raise ValueError("member beyond the end")
    return raw[start : start + info.file_size]


def _read_legacy(raw: np.ndarray) -> Any:
    head = raw[:INDEX_LIMIT].tobytes()
    stream = io.BytesIO(head)
    for _ in range(3):  # magic number, protocol version, the writer's machine
        _load(stream, _no_storage, raw.size)
    start, declared = stream.tell(), {}

    def declare(dtype: str, key: str, count: int) -> np.ndarray:
        declared[key] = dtype
        return np.zeros(0)

    # The storages follow the pickle that refers to them: read it first for their names alone.
    _load(stream, declare, raw.size, tensors=False)
    keys = _load(stream, _no_storage, raw.size)
    places, position = {}, stream.tell()
    for key in keys:
        (count,) = struct.unpack("<q", raw[position : position + 8].tobytes())
        size = count * _item_size(declared[key])
        if count < 0 or position + 8 + size > raw.size:
            raise ValueError("storage beyond the end")
        places[key] = raw[position + 8 : position + 8 + size]
        position += 8 + size
    storages: dict[tuple[str, str], np.ndarray] = {}

    def storage(dtype: str, key: str, count: int) -> np.ndarray:
        if (key, dtype) not in storages:
            storages[key, dtype] = _values(places[key], dtype, count, "<")
        return storages[key, dtype]

    return _load(io.BytesIO(head[start:]), storage, raw.size)


def _no_storage(dtype: str, key: str, count: int) -> np.ndarray:
    raise ValueError("a storage where none belongs")


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


def _load(
    stream: io.BytesIO,
    storage: Callable[[str, str, int], np.ndarray],
    file_size: int,
    *,
    tensors: bool = True,
) -> Any:
    """The next object of a stream; with `tensors` false, its storages are named and no more."""

    def persistent(identifier: Any) -> np.ndarray:
        kind, dtype, key, _, count, *view = identifier
        if kind != "storage" or dtype not in _STORAGES.values() or any(view):
            raise ValueError("an unknown persistent id")
        if not isinstance(key, str) or type(count) is not int:
            raise TypeError("a storage without name or size")
        return storage(dtype, key, count)

    def rebuild(values: np.ndarray, offset: int, shape: tuple, strides: tuple, *_) -> Any:
        return _tensor(values, offset, shape, strides, file_size) if tensors else None

    return load(stream, Names(_functions(rebuild), _mentioned(), _is_inert), persistent)


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


def _mentioned() -> Mapping[str, str]:
    return _STORAGES | {f"torch.{name}": name for name in _TORCH_DTYPES}


def _is_inert(name: Global) -> bool:
    return name.module == "default_config" or str(name) in _INERT


def _ordered(pairs: Any = ()) -> dict:
    if any(not isinstance(key, str) for key, _ in pairs):
        raise TypeError("a key that is no text")
    return dict(pairs)


def _latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 spells bytes."""
    if encoding != "latin1":
        raise ValueError("another encoding")
    return text.encode("latin1")


def _scalar(dtype: Record, data: bytes) -> int | float | bool:
    if dtype.kind != "numpy.dtype" or dtype.arguments[0] not in _NUMBERS:
        raise ValueError("a scalar that is no number")
    return np.frombuffer(data, dtype.arguments[0], count=1).item()


def _tensor(
    values: np.ndarray, offset: int, shape: tuple, strides: tuple, file_size: int
) -> np.ndarray:
    """A view of a storage; strides count values and are not negative, as in PyTorch."""
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
