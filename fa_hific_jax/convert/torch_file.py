"""A reader for files of `torch.save` that needs no PyTorch and runs nothing from the file.

There are two formats: a zip archive with one member per storage (PyTorch 1.6 and later), and the
older sequence of pickles followed by raw storages. In both, a pickle describes the tensors.
`inert_pickle` reads it, so a file can neither call nor import anything.
"""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from fa_hific_jax.convert.torch_tensors import Dtypes, Storages, item_size, load_tensors
from fa_hific_jax.errors import UserError

INDEX_LIMIT = 1 << 24
"""Largest accepted pickle in bytes. It holds no weights; bad files must not fill the memory."""

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = b"\x80\x02\x8a\x0a" + _LEGACY_MAGIC.to_bytes(10, "little")
_OTHER_FILES = (
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file that it points to"),
    (b"<", "a web page: download the file itself"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip archive: decompress it first"),
)
_DAMAGE = (
    ValueError, TypeError, LookupError, OverflowError, AttributeError, struct.error,
    zipfile.BadZipFile, NotImplementedError,
)  # fmt: skip


def read_torch_file(path: str | Path) -> Any:
    """Returns the object given to `torch.save`, with tensors and parameters as NumPy arrays.

    Arrays keep their shape and dtype (float16, 32 and 64, integers, bool); bfloat16 becomes
    float32. They are read-only. Most are views of the file, whose bytes are read when they are
    used. A `torch.Size` becomes a tuple; devices and dtypes become text. Instances of
    `argparse.Namespace`, of `types.SimpleNamespace` and of two kinds of classes in the PyTorch
    HiFiC (those in `default_config`, and `src.helpers.utils.Struct`) become
    `inert_pickle.Record`s with their state.

    Raises:
      UserError: the file is missing, damaged or of another kind, a tensor exceeds its storage, or
        `torch.load` could run code from the file. Nothing of the file has been run.
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
    kind = _kind(raw[:64].tobytes()) or ": name a checkpoint, usually .pt or .pth"
    raise UserError(f"{path} is not a file of torch.save{kind}")


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
        raise UserError("it is a zip archive without data.pkl, so torch.save did not write it")
    if f"{root}/constants.pkl" in members:
        raise UserError(
            "it is a TorchScript program: save its state_dict() with torch.save instead"
        )
    if sum(info.file_size for info in members.values()) > raw.size:
        raise UserError("its zip archive declares more bytes than it has")
    content = {name.removeprefix(f"{root}/"): _stored(raw, members[name]) for name in members}
    index = content["data.pkl"]
    if index.size > INDEX_LIMIT:
        raise UserError(f"its pickle has {index.size} bytes, more than any list of tensors needs")
    big = "byteorder" in content and content["byteorder"].tobytes() == b"big"
    places = {key.removeprefix("data/"): place for key, place in content.items()}
    storages = Storages(places, ">" if big else "<", raw.size)
    return load_tensors(io.BytesIO(index.tobytes()), storages)


def _stored(raw: np.ndarray, info: zipfile.ZipInfo) -> np.ndarray:
    """Returns the bytes of a member, which torch.save neither compresses nor encrypts."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise UserError("its zip archive is compressed or encrypted, unlike those of torch.save")
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
    stream, dtypes = io.BytesIO(head), Dtypes()
    for _ in range(3):  # The magic number, the protocol version, the writer's machine.
        load_tensors(stream, dtypes)
    start = stream.tell()
    # The storages follow the pickle that refers to them. The first reading finds their dtypes, from
    # which the bytes of each storage follow.
    load_tensors(stream, dtypes)
    keys = load_tensors(stream, dtypes)
    places, position = {}, stream.tell()
    for key in keys:
        (count,) = struct.unpack("<q", raw[position : position + 8].tobytes())
        places[key] = _slice(raw, position + 8, count * item_size(dtypes.found[key]))
        position += 8 + places[key].size
    return load_tensors(io.BytesIO(head[start:]), Storages(places, "<", raw.size))
