"""A reader for files of `torch.save` that needs no PyTorch and runs nothing from the file.

There are two formats: a zip archive with one member per storage (PyTorch 1.6 and later), and the
older sequence of pickles followed by raw storages. In both, a pickle describes the tensors.

`pickle.loads` imports and calls whatever a file names. Here the standard library's `pickletools`
parses the opcodes, and a stack machine executes those that pickle writes from protocol 2 on, on
plain values and on the few names that stand for tensors. Subclassing `pickle.Unpickler` would not
be enough: it sets attributes of the objects it makes, hashes nested tuples until the C stack
overflows, and allocates whatever memo size a file asks for.
"""

import io
import math
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fa_hific_jax.errors import UserError, shown

INDEX_LIMIT = 1 << 24
"""Largest accepted pickle in bytes: it holds no weights, and must not fill the memory."""

# A pickle of protocol 2 that holds the magic number of the older format.
_LEGACY_START = b"\x80\x02\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little")

# Types of storages, with the types that NumPy reads their bytes as.
_STORAGES = dict(Double="f8", Float="f4", Half="f2", BFloat16="u2", Bool="u1")
_STORAGES |= dict(Long="i8", Int="i4", Short="i2", Char="i1", Byte="u1")
_DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()
# Classes and functions whose results say nothing of the weights: each result is a Record.
_RECORDS = {
    "argparse.Namespace", "types.SimpleNamespace", "src.helpers.utils.Struct", "_codecs.encode",
    "torch.Size", "torch.device", "numpy.dtype", "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
}  # fmt: skip
_VALUES = set(
    "BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINSTRING SHORT_BINSTRING BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_MARK = object()
# How many values an opcode takes from the stack; None for all those above the topmost mark.
_TAKEN = dict(TUPLE=None, TUPLE1=1, TUPLE2=2, TUPLE3=3, APPEND=1, APPENDS=None, SETITEM=2)
_TAKEN |= dict(SETITEMS=None, STACK_GLOBAL=2, REDUCE=2, NEWOBJ=2, BUILD=1, BINPERSID=1, STOP=1)


class Record(dict):
    """The state of an object whose class is not imported."""


def read_torch_file(path: str | Path) -> Any:
    """Returns the object given to `torch.save`, with tensors and parameters as NumPy arrays.

    Arrays are read-only and keep their shape and dtype; bfloat16 becomes float32. Most are views of
    the file, whose bytes are read when they are used. Namespaces, and the classes in which the
    PyTorch HiFiC keeps its arguments, become `Record`s of their attributes. Sizes, devices and
    NumPy's scalars become empty `Record`s.

    Raises:
      UserError: the file is missing, damaged or of another kind, a tensor exceeds its storage, or
        `torch.load` could run code from the file. Nothing of the file has been run.
    """
    try:
        raw = np.memmap(path, np.uint8, mode="r")
        start = raw[:64].tobytes()
        if start.startswith(b"PK\x03\x04"):
            return _read_zip(raw, path)
        if start.startswith(_LEGACY_START):
            return _read_legacy(raw)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # NumPy, zipfile and the pickle raise errors of many types.
        raise UserError(f"{path} is empty, damaged or cut short: fetch it again") from error
    raise UserError(
        f"{path} is not a file of torch.save, but perhaps a web page, a Git LFS pointer or a "
        "safetensors file: name a checkpoint, usually .pt or .pth"
    )


def _read_zip(raw: np.ndarray, path: str | Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
    root = next((n.partition("/")[0] for n in members if n.endswith("/data.pkl")), None)
    if root is None:
        raise UserError("it is a zip archive without data.pkl, so torch.save did not write it")
    content = {name.removeprefix(f"{root}/"): _stored(raw, members[name]) for name in members}
    index = content["data.pkl"]
    if index.size > INDEX_LIMIT:
        raise UserError(f"its pickle has {index.size} bytes, more than any list of tensors needs")
    order = ">" if content.get("byteorder", raw[:0]).tobytes() == b"big" else "<"
    places = {key.removeprefix("data/"): place for key, place in content.items()}
    return _Reader(places, raw.size, order).load(io.BytesIO(index.tobytes()))


def _stored(raw: np.ndarray, info: zipfile.ZipInfo) -> np.ndarray:
    """Returns the bytes of a member, which torch.save neither compresses nor encrypts."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise UserError("its zip archive is compressed or encrypted, unlike those of torch.save")
    header = raw[info.header_offset : info.header_offset + 30].tobytes()
    return _slice(
        raw, info.header_offset + 30 + sum(struct.unpack("<26xHH", header)), info.file_size
    )


def _slice(raw: np.ndarray, start: int, size: int) -> np.ndarray:
    if size < 0 or start + size > raw.size:
        raise ValueError("bytes beyond the end")
    return raw[start : start + size]


def _read_legacy(raw: np.ndarray) -> Any:
    head = raw[:INDEX_LIMIT].tobytes()
    stream, first = io.BytesIO(head), _Reader(None, raw.size)
    for _ in range(3):  # The magic number, the protocol version, the writer's machine.
        first.load(stream)
    start = stream.tell()
    # The storages follow the pickle that refers to them. The first reading finds their types, from
    # which the bytes of each storage follow.
    first.load(stream)
    keys = first.load(stream)
    places, position = {}, stream.tell()
    for key in map(_text, keys):
        (count,) = struct.unpack("<q", raw[position : position + 8].tobytes())
        places[key] = _slice(
            raw, position + 8, count * np.dtype(_STORAGES[first.kinds[key]]).itemsize
        )
        position += 8 + places[key].size
    return _Reader(places, raw.size).load(io.BytesIO(head[start:]))


class _Reader:
    """The stack machine of the pickle format, which makes tensors that are views of storages.

    `places` has the bytes of each storage by key, in the byte order `order`. If it is None, only
    the type of each storage is found (`kinds`), and there are no tensors.
    """

    def __init__(self, places: Mapping[str, np.ndarray] | None, file_size: int, order: str = "<"):
        self.places, self.file_size, self.order = places, file_size, order
        self.kinds: dict[str, str] = {}
        self.values: dict[tuple[str, str], np.ndarray] = {}
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def load(self, stream: io.BytesIO) -> Any:
        """Returns the next object of a stream, which is read up to the object's end."""
        self.stack, self.memo, value = [], {}, None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Damaged text has odd escapes.
            for opcode, argument, _ in pickletools.genops(stream):
                value = self.execute(opcode.name, argument)
        return value

    def execute(self, opcode: str, argument: Any) -> Any:
        """Executes an opcode; returns the pickled object if it is the last one."""
        push, taken = self.stack.append, self.take(_TAKEN.get(opcode, 0))
        match opcode:
            case _ if opcode in _VALUES:
                push(argument)
            case _ if opcode in _CONSTANTS:
                push(_CONSTANTS[opcode])
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return taken[0]
            case "MARK":
                push(_MARK)
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                push(self.memo[argument])
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(taken))
            case "EMPTY_LIST" | "EMPTY_DICT":
                push([] if opcode == "EMPTY_LIST" else {})
            case "APPEND" | "APPENDS" if isinstance(self.stack[-1], list):
                self.stack[-1].extend(taken)
            case "SETITEM" | "SETITEMS" if isinstance(self.stack[-1], dict):
                # Hashing a deeply nested tuple would overflow the C stack.
                if not all(isinstance(key, str | bytes | int | float | None) for key in taken[::2]):
                    raise TypeError("a key that is not a plain value")
                self.stack[-1].update(zip(taken[::2], taken[1::2], strict=True))
            case "GLOBAL" | "STACK_GLOBAL":
                push(self.find(".".join(taken) or argument.replace(" ", ".", 1)))
            case "REDUCE" | "NEWOBJ":
                push(taken[0](*taken[1]))
            case "BUILD" if isinstance(self.stack[-1], dict):
                # A state dict gets its `_metadata` this way, which says nothing about the weights.
                if isinstance(self.stack[-1], Record) and isinstance(taken[0], dict):
                    self.stack[-1].update(taken[0])
            case "BINPERSID":
                push(self.storage(taken[0]))
            case _:
                raise LookupError(f"opcode {opcode} is unsupported or does not fit the stack")

    def take(self, count: int | None) -> list[Any]:
        """Removes the topmost values, or the topmost mark and all above it, and returns them."""
        taken = []
        while count is None or len(taken) < count:
            value = self.stack.pop()
            if value is _MARK and count is None:
                break
            if value is _MARK:
                raise ValueError("a mark in place of a value")
            taken.append(value)
        return taken[::-1]

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
        self.kinds[_text(key)] = _text(kind)
        if self.places is None:
            return None
        if (key, kind) not in self.values:  # Each is converted once.
            stored = np.dtype(self.order + _STORAGES[kind])
            values = self.places[key][: count * stored.itemsize].view(stored)
            if kind == "BFloat16":  # The upper half of a float32.
                values = (values.astype(np.uint32) << 16).view(np.float32)
            native = bool if kind == "Bool" else values.dtype.newbyteorder("=")
            self.values[key, kind] = values.astype(native, copy=False)
        return self.values[key, kind]

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


def _text(value: Any) -> str:
    """Returns the value, which must be a text: hashing nested tuples overflows the C stack."""
    if type(value) is not str:
        raise TypeError("a key that is not a text")
    return value


# What stands for the names that a pickle may contain, with the function that runs in place of each.
_NAMES = {
    **{f"{m}.{kind}Storage": kind for kind in _STORAGES for m in ("torch", "torch.cuda")},
    **{f"torch.{name}": name for name in _DTYPES},
    "collections.OrderedDict": lambda pairs=(): {_text(key): value for key, value in pairs},
    "torch._utils._rebuild_parameter": lambda data, requires_grad, hooks: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, grad, hooks, state: data,
}
