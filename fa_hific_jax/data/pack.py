"""Image files into ArrayRecord shards: fewer, larger files that training reads fast at random.

A record holds the bytes of one image file. PNG, JPEG and WebP files go in as they are; others
(TIFF, BMP, ...) become PNG, without loss. What is larger than wanted is shrunk (Lanczos) and
written anew: as JPEG of quality 95 with full color resolution where it was JPEG, else as PNG, so
that lossless sources stay lossless. Every image is decoded once, to be sure that it can be.
"""

import dataclasses
import hashlib
import importlib.metadata
import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fa_hific_jax import __version__
from fa_hific_jax.data import images
from fa_hific_jax.data.array_records import MANIFEST, MARK, array_record_module, check_names
from fa_hific_jax.data.listing import reason
from fa_hific_jax.errors import UserError
from fa_hific_jax.writing import whole_path, write

VERSION = 1  # of the manifest
JPEG_QUALITY = 95

# What goes in as it is, by its first bytes, since names can be wrong.
_JPEG = b"\xff\xd8\xff"
_KEPT = (_JPEG, b"\x89PNG\r\n\x1a\n", b"RIFF")
# Random access wants one record to a chunk, and encoded images cannot be compressed further.
_WRITER = "group_size:1,uncompressed"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to make of which images.

    Raises UserError for numbers that make no sense.
    """

    paths: tuple[str, ...]
    sizes: tuple[int, ...]  # of the files in bytes
    shards: int
    min_side: int = 0  # images with a side below this, once shrunk, are left out, pixels
    max_side: int = 0  # images with a side above this are shrunk to it; 0 for none

    def __post_init__(self):
        if not 1 <= self.shards <= len(self.paths):
            raise UserError(
                f"--shards is {self.shards}: it must be from 1 to the number of images, "
                f"{len(self.paths)}"
            )
        if self.min_side < 0 or self.max_side < 0:
            raise UserError("--min-side and --max-side must not be negative")
        if 0 < self.max_side < self.min_side:
            raise UserError(
                f"--max-side is {self.max_side}, below --min-side, {self.min_side}: "
                "every image would be left out"
            )

    def name(self, shard: int) -> str:
        """The file name of a shard."""
        return f"images-{shard:05d}-of-{self.shards:05d}{MARK}"

    def identity(self) -> dict[str, Any]:
        """What has to be the same for a stopped run to go on."""
        lines = (
            f"{os.path.abspath(path)}\t{size}\n"
            for path, size in zip(self.paths, self.sizes, strict=True)
        )
        digest = hashlib.sha256()
        for line in lines:
            digest.update(line.encode("utf-8", "surrogateescape"))
        return {
            "version": VERSION,
            "shards": self.shards,
            "min_side": self.min_side,
            "max_side": self.max_side,
            "sources": {"count": len(self.paths), "sha256": digest.hexdigest()},
        }


class Prepared(NamedTuple):
    """A record, or none and why: empty `damage` stands for an image that is too small."""

    record: bytes | None
    damage: str = ""


def pack(plan: Plan, folder: Path, jobs: int, advance: Callable[[int], None]) -> dict[str, Any]:
    """Writes the shards that `folder` does not have yet; returns its manifest.

    Every shard is written under a temporary name and renamed, then entered in manifest.json; a
    stopped run goes on with the first shard that is missing there.

    Args:
      plan: what to pack.
      folder: where to; made if need be.
      jobs: threads that read, check and shrink images.
      advance: told the bytes of each image file that is done, also of those packed earlier.

    Raises:
      UserError: no ArrayRecord here, a folder whose name it does not take, with shards of another
        plan, or that cannot be written to.
    """
    writer = array_record_module("pack").ArrayRecordWriter
    check_names([os.fspath(folder)])
    pool = ThreadPoolExecutor(jobs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        manifest = _manifest(plan, folder)
        finished = manifest["finished"]
        for shard in range(plan.shards):
            name, sizes = plan.name(shard), plan.sizes[shard :: plan.shards]
            if name in finished and (folder / name).is_file():
                for size in sizes:
                    advance(size)
                continue
            files = plan.paths[shard :: plan.shards]
            prepared = _in_order(pool, lambda path: prepare(path, plan), files, 2 * jobs)
            finished[name] = _write_shard(writer, folder / name, prepared, sizes, advance)
            _write_manifest(manifest, folder)
    except (OSError, RuntimeError) as error:  # the writer's own errors are RuntimeErrors
        raise UserError(
            f"{getattr(error, 'filename', None) or folder}: cannot be written ({reason(error)}): "
            "make room or get permission, then give the same command again to go on"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return manifest


def prepare(path: str, plan: Plan) -> Prepared:
    """The record of an image file, by the rules at the head of this module."""
    try:
        data = Path(path).read_bytes()
        rgb = images.decode(data, path)
    except OSError as error:
        return Prepared(None, f"{path}: cannot be read ({reason(error)})")
    except UserError as error:
        return Prepared(None, str(error))
    height, width, _ = rgb.shape
    scale = min(1.0, plan.max_side / max(height, width)) if plan.max_side else 1.0
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    if min(size) < plan.min_side:
        return Prepared(None)
    if scale == 1.0 and data.startswith(_KEPT):
        return Prepared(data)
    return Prepared(_encoded(rgb, size, jpeg=data.startswith(_JPEG)))


def total(manifest: dict[str, Any], key: str) -> int:
    """The sum over all shards of "images", "bytes" or "too_small"."""
    return sum(shard[key] for shard in manifest["finished"].values())


def damaged(manifest: dict[str, Any]) -> list[str]:
    """Sentences on the files that could not be read, of all shards."""
    return [sentence for shard in manifest["finished"].values() for sentence in shard["damaged"]]


def _encoded(rgb: np.ndarray, size: tuple[int, int], jpeg: bool) -> bytes:
    image = Image.fromarray(rgb)
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    if jpeg:
        image.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(file, "PNG")
    return file.getvalue()


def _in_order(
    pool: ThreadPoolExecutor,
    function: Callable[[str], Prepared],
    files: Iterable[str],
    ahead: int,
) -> Iterator[Prepared]:
    """function(file) of each file in order, computed in threads, at most `ahead` at once."""
    rest = iter(files)
    pending = deque(pool.submit(function, file) for file in islice(rest, ahead))
    while pending:
        done = pending.popleft().result()
        pending.extend(pool.submit(function, file) for file in islice(rest, 1))
        yield done


def _write_shard(
    writer: Any,
    path: Path,
    prepared: Iterator[Prepared],
    sizes: tuple[int, ...],
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """The manifest's entry of a shard, once that is written."""
    entry = {"images": 0, "bytes": 0, "too_small": 0, "damaged": []}
    with whole_path(path) as temporary:
        file = writer(str(temporary), _WRITER)
        for (record, damage), size in zip(prepared, sizes, strict=True):
            if record is not None:
                file.write(record)
                entry["images"] += 1
                entry["bytes"] += len(record)
            elif damage:
                entry["damaged"].append(damage)
            else:
                entry["too_small"] += 1
            advance(size)
        file.close()
    return entry


def _manifest(plan: Plan, folder: Path) -> dict[str, Any]:
    """The folder's manifest of this plan, or a fresh one."""
    path, identity = folder / MANIFEST, plan.identity()
    if not path.exists():
        if any(MARK in file.name for file in folder.iterdir()):
            raise UserError(f"{folder}: holds shards without {MANIFEST}: give another -o")
        packages = {name: importlib.metadata.version(name) for name in ("array_record", "pillow")}
        return identity | {"finished": {}, "made_with": {"fa-hific-jax": __version__} | packages}
    try:
        manifest = json.loads(path.read_text("utf-8"))
        differing = [key for key, value in identity.items() if manifest[key] != value]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error!r}): give another -o") from error
    if differing:
        raise UserError(
            f"{folder}: holds shards of another selection ({', '.join(differing)} differ): "
            "give another -o, or delete it"
        )
    return manifest


def _write_manifest(manifest: dict[str, Any], folder: Path) -> None:
    write(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
