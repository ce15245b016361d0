"""Weights that others publish, as one .npz of ours: downloaded or local, checked, converted."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from fa_hific_jax.convert.download import Unreachable, cache_folder, check_sha256, download
from fa_hific_jax.errors import UserError
from fa_hific_jax.writing import whole_file


class Source(NamedTuple):
    """A published file."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


class Recipe(NamedTuple):
    """How an .npz is made."""

    name: str  # of the .npz in the cache
    sources: tuple[Source, ...]
    convert: Callable[..., dict[str, np.ndarray]]  # paths of the sources -> arrays
    load: Callable[[Path], object]  # raises a UserError for an .npz that is no good
    command: str  # of the user, for messages


def get_weights(recipe: Recipe, output: Path | None = None, folder: Path | None = None) -> Path:
    """Path of the .npz, made where it is not there yet.

    Every published file is held to its full SHA-256 before it is read, downloaded or not. The
    downloads are removed once the .npz stands in the cache.

    Args:
      recipe: of the .npz.
      output: where the .npz is wanted, None for the cache.
      folder: holds the published files; None to download them.

    Raises:
      UserError: a file cannot be had, read or written, or has another hash.
    """
    if output is not None and output.is_dir():
        raise UserError(f"{output} is a folder: name a file")
    cached = cache_folder() / recipe.name
    if folder is not None:
        path = output or cached
        _save(path, recipe.convert(*_local(recipe, folder)))
        return path
    if not _good(recipe, cached):
        files = _downloaded(recipe)
        _save(cached, recipe.convert(*files))
        for file in files:
            file.unlink(missing_ok=True)
    if output is not None:
        _write(output, lambda file: file.write(cached.read_bytes()))
    return output or cached


def _downloaded(recipe: Recipe) -> list[Path]:
    files = [cache_folder() / source.name for source in recipe.sources]
    try:
        for source, file in zip(recipe.sources, files, strict=True):
            download(source.url, file, source.sha256)
    except Unreachable as error:
        urls = " and ".join(source.url for source in recipe.sources)
        raise UserError(
            f"{error}; where there is a network, download {urls} into one folder, and here run "
            f"`{recipe.command} --from FOLDER`"
        ) from error
    return files


def _local(recipe: Recipe, folder: Path) -> list[Path]:
    for source in recipe.sources:
        if not (folder / source.name).is_file():
            raise UserError(f"{folder / source.name}: no such file; download it from {source.url}")
        check_sha256(folder / source.name, source.sha256)
    return [folder / source.name for source in recipe.sources]


def _good(recipe: Recipe, path: Path) -> bool:
    try:
        recipe.load(path)
    except UserError:
        return False
    return True


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    _write(path, lambda file: np.savez(file, **arrays))  # pyright: ignore[reportArgumentType]


def _write(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """`path` as `fill` makes it, never half-written; raises a UserError where it cannot be."""
    try:
        with whole_file(path) as file:
            fill(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
