"""Lists the files that a folder, a glob or a single name stands for, local or in a bucket."""

import glob
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import NoReturn

from etils import epath

from fa_hific_jax.data.image_names import matches, walk
from fa_hific_jax.errors import UserError


def find(pattern: str, wanted: Callable[[str], bool]) -> list[str]:
    """Returns the sorted paths of the files that match.

    Args:
      pattern: a folder, which is searched with all folders below it, a glob, or a file. `~` stands
        for the home folder. Addresses such as gs://bucket/folder are read by etils.epath. Hidden
        files are skipped, and outside buckets also the content of hidden folders.
      wanted: returns True if a file with this name (without folders) is to be returned.

    Raises:
      UserError: the pattern is empty, or the place cannot be listed. Finding nothing is no error.
    """
    if not pattern:
        raise UserError("the name of the images is empty: give a folder or . for the current one")
    try:
        found = _remote(pattern, wanted) if is_remote(pattern) else _local(pattern, wanted)
    except UserError:
        raise
    except Exception as error:  # Clients of storage services raise errors of many types.
        remedy = ", and that gcsfs is installed" if is_remote(pattern) else ""
        raise UserError(_unlisted(pattern, error) + remedy) from error
    return sorted(found)


def read(path: str) -> bytes:
    """Returns the bytes of a file in a bucket.

    Raises:
      UserError: the file cannot be read; the message contains its name.
    """
    try:
        return epath.Path(path).read_bytes()
    except Exception as error:
        raise UserError(
            f"{path}: cannot be read ({reason(error)}): check the name and your permission"
        ) from error


def is_remote(path: str) -> bool:
    """Returns True for an address in a bucket, such as gs://bucket/name."""
    return "://" in path


def reason(error: BaseException) -> str:
    """Returns the message of an exception in one line, without the file name of an OSError."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__


def _local(pattern: str, wanted: Callable[[str], bool]) -> Iterable[str]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        return [str(file) for file in walk(path, _raise) if wanted(file.name)]
    names = [str(path)] if path.is_file() else matches(path, _raise)
    if not names and path.parent.is_dir():
        os.scandir(path.parent).close()  # Raises if there is no permission, which glob hides.
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
        raise UserError(
            f"{pattern}: ** does not work in buckets: give the folder, it is searched recursively"
        )
    else:
        scheme, _, rest = pattern.partition("://")
        bucket, _, inner = rest.partition("/")
        found = [str(file) for file in epath.Path(f"{scheme}://{bucket}").glob(inner)]
    names = ((PurePosixPath(file).name, file) for file in found)
    return [file for name, file in names if wanted(name) and not name.startswith(".")]
