"""The files that a folder, a glob or a single name stands for, on this machine or in a bucket."""

import glob
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import NoReturn

from etils import epath

from fa_hific_jax.data.image_names import matches, walk
from fa_hific_jax.errors import UserError


def find(pattern: str, wanted: Callable[[str], bool]) -> list[str]:
    """Sorted paths of the files whose name (without folders) is `wanted`.

    Args:
      pattern: a folder, which is searched below as well, a glob, or a file. `~` stands for the home
        folder; addresses such as gs://bucket/folder are read through etils.epath. Hidden files do
        not count, except in buckets those within hidden folders.
      wanted: says of a file's name whether it counts.

    Raises:
      UserError: an empty pattern, or the place cannot be listed. Finding nothing is not an error.
    """
    if not pattern:
        raise UserError("an empty name stands for no images; the current folder is called .")
    try:
        found = _remote(pattern, wanted) if is_remote(pattern) else _local(pattern, wanted)
    except UserError:
        raise
    except Exception as error:  # clients of storage services raise errors of many types
        remedy = ", and that gcsfs is installed" if is_remote(pattern) else ""
        raise UserError(_unlisted(pattern, error) + remedy) from error
    return sorted(found)


def read(path: str) -> bytes:
    """The bytes of a file in a bucket.

    Raises UserError with its name where it cannot be read.
    """
    try:
        return epath.Path(path).read_bytes()
    except Exception as error:
        raise UserError(
            f"{path}: cannot be read ({reason(error)}): check the name and your permission"
        ) from error


def is_remote(path: str) -> bool:
    """Whether a path is the address of a bucket, as gs://bucket/name."""
    return "://" in path


def reason(error: BaseException) -> str:
    """What an exception says, in one line without file names."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__


def _local(pattern: str, wanted: Callable[[str], bool]) -> Iterable[str]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        return [str(file) for file in walk(path, _raise) if wanted(file.name)]
    names = [str(path)] if path.is_file() else matches(path, _raise)
    if not names and path.parent.is_dir():
        os.scandir(path.parent).close()  # says what glob keeps to itself: no permission
    return [name for name in names if wanted(os.path.basename(name)) and os.path.isfile(name)]


def _raise(error: OSError) -> NoReturn:
    raise UserError(_unlisted(error.filename, error)) from error


def _unlisted(place: str, error: Exception) -> str:
    return f"{place}: cannot be listed ({reason(error)}): check the name and your permission"


def _remote(pattern: str, wanted: Callable[[str], bool]) -> Iterable[str]:
    path = epath.Path(pattern)
    if path.is_dir():
        found = [f"{folder}/{name}" for folder, _, names in path.walk() for name in names]
    elif not glob.has_magic(pattern):
        found = [pattern] if path.exists() else []
    elif "**" in pattern:
        raise UserError(f"{pattern}: buckets know no **: give the folder, it is searched below")
    else:
        scheme, _, rest = pattern.partition("://")
        bucket, _, inner = rest.partition("/")
        found = [str(file) for file in epath.Path(f"{scheme}://{bucket}").glob(inner)]
    names = ((PurePosixPath(file).name, file) for file in found)
    return [file for name, file in names if wanted(name) and not name.startswith(".")]
