"""The tensors in files of `torch.save`: views of storages, and which names may build them."""

import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fa_hific_jax.convert.inert_pickle import Global, Names, Record, load
from fa_hific_jax.errors import UserError

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


class Storages:
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


class Dtypes:
    """Stands in for `Storages` where these are not known yet, and learns their dtypes."""

    def __init__(self):
        self.found: dict[str, str] = {}

    def storage(self, identifier: Any) -> None:
        dtype, key, _ = _identified(identifier)
        self.found[key] = dtype

    def tensor(self, *_) -> None:
        return None


def item_size(dtype: str) -> int:
    """Bytes of a value in a storage."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _values(data: np.ndarray, dtype: str, count: int, order: str) -> np.ndarray:
    size = count * item_size(dtype)
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


def load_tensors(stream: io.BytesIO, storages: Storages | Dtypes) -> Any:
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
        "torch.Size": _size,
        "torch.device": _device,
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


def _size(size) -> tuple:
    if not isinstance(size, tuple | list):
        raise TypeError("a size that is none")
    return tuple(size)


def _device(kind, *index) -> str:
    if not all(type(part) in (str, int) for part in (kind, *index)):
        raise TypeError("a device that is none")
    return ":".join(map(str, (kind, *index)))


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
    if not (isinstance(values, np.ndarray) and type(shape) is type(strides) is tuple):
        raise TypeError("a tensor without storage, shape or strides")
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
