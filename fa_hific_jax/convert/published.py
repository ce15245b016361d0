"""Weights that other projects publish: downloaded or local, checked, converted to one .npz."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fa_hific_jax.cache import cache_folder
from fa_hific_jax.convert.download import check_sha256, download, file_name, writable
from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.weight_files import Shapes, mistakes, read_npz
from fa_hific_jax.writing import write


class PublishedFile(NamedTuple):
    """A file of another project: its address and the SHA-256 of its content in hexadecimal."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        return file_name(self.url)


class Recipe(NamedTuple):
    """A description of how an .npz is made from published files."""

    name: str  # file name of the .npz in the cache folder
    sources: tuple[PublishedFile, ...]
    convert: Callable[..., dict[str, np.ndarray]]  # paths of the sources -> arrays of the .npz
    shapes: Shapes  # of these arrays
    command: str  # the user's command, for messages


def get_weights(recipe: Recipe, output: Path | None = None, folder: Path | None = None) -> Path:
    """Returns the path of the .npz, which is made if it is missing.

    The full SHA-256 of every published file is checked before the file is read. Downloads are
    removed once the .npz is in the cache folder.

    Args:
      recipe: the description of the .npz.
      output: path of the .npz; None for the cache folder.
      folder: folder that holds the published files; None to download them.

    Raises:
      UserError: a published file cannot be downloaded or read or has another hash, or the .npz
        cannot be written.
    """
    if output is not None and output.is_dir():
        raise UserError(f"{output} is a folder: name a file")
    cached = cache_folder() / recipe.name
    if folder is not None:
        _save(output or cached, recipe.convert(*_local(recipe, folder)))
        return output or cached
    if not _is_usable(recipe, cached):
        files = _downloaded(recipe)
        _save(cached, recipe.convert(*files))
        for file in files:
            file.unlink(missing_ok=True)
    if output is not None:
        with writable(output):
            write(output, cached.read_bytes(), replace=True)
    return output or cached


def _downloaded(recipe: Recipe) -> list[Path]:
    urls = " and ".join(source.url for source in recipe.sources)
    offline = (
        f"download {urls} into one folder on a machine that has a network, then run "
        f"`{recipe.command} --from FOLDER` here"
    )
    files = [cache_folder() / source.name for source in recipe.sources]
    for source, file in zip(recipe.sources, files, strict=True):
        download(source.url, file, source.sha256, offline)
    return files


def _local(recipe: Recipe, folder: Path) -> list[Path]:
    for source in recipe.sources:
        if not (folder / source.name).is_file():
            raise UserError(f"{folder / source.name}: no such file: download it from {source.url}")
        check_sha256(folder / source.name, source.sha256)
    return [folder / source.name for source in recipe.sources]


def _is_usable(recipe: Recipe, path: Path) -> bool:
    try:
        return not mistakes(read_npz(path, recipe.command, ""), recipe.shapes)
    except UserError:
        return False


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays)  # pyright: ignore[reportArgumentType]
    with writable(path):
        write(path, content.getvalue(), replace=True)
