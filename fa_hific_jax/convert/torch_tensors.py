"""Tensors in files of `torch.save`: views of storages, and the names that pickles may contain."""

import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fa_hific_jax.convert.inert_pickle import Names, Record, load
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
    """The storages of a file, converted to arrays once, and the tensors that are views of them."""

    def __init__(self, places: Mapping[str, np.ndarray], order: str, file_size: int):
        self.places, self.order, self.file_size = places, order, file_size
        self.values: dict[tuple[str, str], np.ndarray] = {}

    def storage(self, identifier: Any) -> np.ndarray:
        """Returns the values of the storage with this persistent id."""
        dtype, key, count = _identified(identifier)
        if (key, dtype) not in self.values:
            self.values[key, dtype] = self._converted(self.places[key], dtype, count)
        return self.values[key, dtype]

    def _converted(self, data: np.ndarray, dtype: str, count: int) -> np.ndarray:
        size = count * item_size(dtype)
        if count < 0 or size > data.size:
            raise UserError(f"a storage of {count} values has {data.size} bytes, not {size}")
        data = data[:size]
        if dtype == "bool":
            return data != 0
        if dtype == "bfloat16":  # The upper half of a float32.
            return (data.view(f"{self.order}u2").astype(np.uint32) << 16).view(np.float32)
        values = data.view(f"{self.order}{dtype}")
        return values.astype(values.dtype.newbyteorder("="), copy=False)

    def tensor(self, values, offset, shape, strides, *_) -> np.ndarray:
        """Returns a view of a storage; strides count values and are not negative, as in PyTorch."""
        if not (isinstance(values, np.ndarray) and type(shape) is type(strides) is tuple):
            raise TypeError("a tensor without storage, shape or strides")
        numbers = (offset, *shape, *strides)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise TypeError("a shape that is not a tuple of sizes")
        if len(shape) != len(strides) or len(shape) > 32:
            raise ValueError("a shape that does not fit the strides")
        count = math.prod(shape)
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if count and last >= values.size:
            raise UserError(
                f"a tensor of shape {shape} needs {last + 1} values, its storage has {values.size}"
            )
        # A stride of 0 repeats values at no cost here, but whoever copies the array pays for it.
        if count * values.itemsize > 2 * self.file_size:
            raise UserError(f"a tensor of shape {shape} is larger than the whole file")
        if not count:
            return np.zeros(shape, values.dtype)
        steps = [stride * values.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(values[offset:], shape, steps, writeable=False)


class Dtypes:
    """A replacement for `Storages` that only collects the dtype of each storage."""

    def __init__(self):
        self.found: dict[str, str] = {}

    def storage(self, identifier: Any) -> None:
        dtype, key, _ = _identified(identifier)
        self.found[key] = dtype

    def tensor(self, *_) -> None:
        return None


def item_size(dtype: str) -> int:
    """Returns the number of bytes of one value in a storage."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _identified(identifier: Any) -> tuple[str, str, int]:
    """Returns (dtype, key, number of values) from the persistent id of a storage."""
    kind, dtype, key, _, count, *view = identifier
    if kind != "storage" or dtype not in _STORAGES.values() or any(view):
        raise ValueError("an unknown persistent id")
    if not isinstance(key, str) or type(count) is not int:
        raise TypeError("a storage without a key or a size")
    return dtype, key, count


def load_tensors(stream: io.BytesIO, storages: Storages | Dtypes) -> Any:
    """Returns the next object of a stream; its tensors are views of the storages."""
    names = Names(
        functions=_functions(storages.tensor),
        values=_MENTIONED,
        inert=lambda name: name.startswith("default_config.") or name in _INERT,
    )
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


def _ordered(pairs: Any = ()) -> dict:
    if any(not isinstance(key, str) for key, _ in pairs):
        raise TypeError("a key that is not text")
    return dict(pairs)


def _size(size) -> tuple:
    if not isinstance(size, tuple | list):
        raise TypeError("not a size")
    return tuple(size)


def _device(kind, *index) -> str:
    if not all(type(part) in (str, int) for part in (kind, *index)):
        raise TypeError("not a device")
    return ":".join(map(str, (kind, *index)))


def _latin1(text, encoding) -> bytes:
    """Returns bytes, which pickle protocol 2 writes as Latin-1 text."""
    if encoding != "latin1":
        raise ValueError("an encoding other than latin1")
    return text.encode("latin1")


def _scalar(dtype, data):
    if dtype.kind != "numpy.dtype" or dtype.arguments[0] not in _NUMBERS:
        raise ValueError("a scalar that is not a number")
    return np.frombuffer(data, dtype.arguments[0], count=1).item()
