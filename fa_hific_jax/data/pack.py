"""Packs image files into ArrayRecord shards: fewer, larger files with fast random access.

A record holds the bytes of one image file. PNG, JPEG and WebP files are packed unchanged; others
(TIFF, BMP, ...) become PNG, without loss. Images that are larger than wanted are downsampled
(Lanczos) and encoded again: JPEG as JPEG of quality 95 with full color resolution, others as PNG,
so that lossless sources stay lossless. Every image is decoded once to check it.
"""

import dataclasses
import hashlib
import importlib.metadata
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grain
from PIL import Image

from fa_hific_jax import __version__
from fa_hific_jax.data import images, jpeg, png
from fa_hific_jax.data.image_names import explained, reason
from fa_hific_jax.data.records import MANIFEST, MARK, array_record_module
from fa_hific_jax.errors import UserError
from fa_hific_jax.writing import whole_path, write

VERSION = 1  # of the manifest
JPEG_QUALITY = 95

# First bytes of files that are packed unchanged; their names could be wrong.
_KEPT = (jpeg.SIGNATURE, png.SIGNATURE, b"RIFF")
# Random access is fast with one record per chunk, and encoded images cannot be compressed further.
_WRITER = "group_size:1,uncompressed"


@dataclasses.dataclass(frozen=True)
class Plan:
    """The images to pack and how to pack them; raises UserError if a number is out of range."""

    paths: tuple[str, ...]
    sizes: tuple[int, ...]  # of the files in `paths`, bytes
    shards: int
    min_side: int = 0  # Images with a side below this after downsampling are left out. Pixels.
    max_side: int = 0  # Images with a side above this are downsampled to it. Pixels; 0: no limit.

    def __post_init__(self):
        if not 1 <= self.shards <= len(self.paths):
            raise UserError(
                f"--shards is {self.shards}: it must be from 1 to the number of images, "
                f"{len(self.paths)}"
            )
        if self.max_side < 0 or not 0 <= self.min_side <= (self.max_side or self.min_side):
            raise UserError(
                f"--min-side is {self.min_side} and --max-side is {self.max_side}: they must not "
                "be negative, and no image is left with --max-side below --min-side"
            )

    def identity(self) -> dict[str, Any]:
        """Returns what must be equal for a run to resume a stopped one."""
        digest = hashlib.sha256()
        for path, size in zip(self.paths, self.sizes, strict=True):
            line = f"{os.path.abspath(path)}\t{size}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        numbers = {name: getattr(self, name) for name in ("shards", "min_side", "max_side")}
        sources = {"count": len(self.paths), "sha256": digest.hexdigest()}
        return {"version": VERSION, **numbers, "sources": sources}

    def prepare(self, path: str) -> bytes | str:
        """Returns an image file's record, a sentence if it cannot be read, "" if it is small."""
        try:
            data = Path(path).read_bytes()
            image = Image.fromarray(images.decode(data, path))
        except OSError as error:
            return f"{path}: cannot be read ({reason(error)})"
        except UserError as error:
            return str(error)
        scale = min(1.0, self.max_side / max(image.size)) if self.max_side else 1.0
        size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
        if min(size) < self.min_side:
            return ""
        if scale == 1.0 and data.startswith(_KEPT):
            return data
        if image.size != size:
            image = image.resize(size, Image.Resampling.LANCZOS)
        file = io.BytesIO()
        if data.startswith(jpeg.SIGNATURE):
            image.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        else:
            image.save(file, "PNG")
        return file.getvalue()


def pack(plan: Plan, folder: Path, jobs: int, advance: Callable[[int], None]) -> dict[str, Any]:
    """Writes the shards that `folder` does not have yet, in `jobs` threads; returns its manifest.

    A shard is entered in manifest.json once it is whole, and a stopped run resumes with the first
    that is missing there. `advance` is called with the size in bytes of each finished file, also of
    those packed earlier.

    Raises:
      UserError: ArrayRecord is not available, or the folder contains shards of another plan or
        cannot be written to.
    """
    writer = array_record_module("pack").ArrayRecordWriter
    options = grain.ReadOptions(num_threads=jobs, prefetch_buffer_size=2 * jobs)
    try:
        os.fspath(folder).encode()  # The writer takes only names in UTF-8.
        folder.mkdir(parents=True, exist_ok=True)
        manifest = _manifest(plan, folder)
        finished = manifest["finished"]
        for shard in range(plan.shards):
            name = f"images-{shard:05d}-of-{plan.shards:05d}{MARK}"
            sizes = plan.sizes[shard :: plan.shards]
            if name in finished and (folder / name).is_file():
                for size in sizes:
                    advance(size)
                continue
            entry = {"images": 0, "bytes": 0, "too_small": 0, "damaged": []}
            files = grain.MapDataset.source(plan.paths[shard :: plan.shards]).map(plan.prepare)
            with whole_path(folder / name) as temporary:
                file = writer(str(temporary), _WRITER)
                for record, size in zip(files.to_iter_dataset(options), sizes, strict=True):
                    if isinstance(record, bytes):
                        file.write(record)
                        entry["images"] += 1
                        entry["bytes"] += len(record)
                    elif record:
                        entry["damaged"].append(record)
                    else:
                        entry["too_small"] += 1
                    advance(size)
                file.close()
            finished[name] = entry
            _write_manifest(manifest, folder)
    except (OSError, RuntimeError, UnicodeError) as error:  # The writer raises RuntimeError.
        raise UserError(
            f"{getattr(error, 'filename', None) or folder}: cannot be written ({reason(error)}): "
            "make room or get permission, then run the same command again to resume"
        ) from error
    return manifest


def total(manifest: dict[str, Any], key: str) -> int:
    """Returns the sum of "images", "bytes" or "too_small" over all shards."""
    return sum(shard[key] for shard in manifest["finished"].values())


def damaged(manifest: dict[str, Any]) -> list[str]:
    """Returns a sentence for each file of any shard that could not be read."""
    return [sentence for shard in manifest["finished"].values() for sentence in shard["damaged"]]


def _manifest(plan: Plan, folder: Path) -> dict[str, Any]:
    """Reads the folder's manifest, which must be of this plan, or returns a new one."""
    path, identity = folder / MANIFEST, plan.identity()
    if not path.exists():
        if any(MARK in file.name for file in folder.iterdir()):
            raise UserError(f"{folder}: has shards but no {MANIFEST}: give another -o")
        packages = {name: importlib.metadata.version(name) for name in ("array_record", "pillow")}
        return identity | {"finished": {}, "made_with": {"fa-hific-jax": __version__} | packages}
    with explained(f"{path}: cannot be read", "give another -o"):
        manifest = json.loads(path.read_text("utf-8"))
        differing = [key for key, value in identity.items() if manifest[key] != value]
    if differing:
        raise UserError(
            f"{folder}: has shards of another selection ({', '.join(differing)} differ): "
            "give another -o, or delete it"
        )
    return manifest


def _write_manifest(manifest: dict[str, Any], folder: Path) -> None:
    write(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
