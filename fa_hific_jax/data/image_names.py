"""Finds image files by name: suffixes, folders, globs and buckets."""

import contextlib
import errno
import glob
import importlib.util
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath
from typing import NoReturn

from etils import epath

from fa_hific_jax.errors import UserError

_PILLOW = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .webp .tif .tiff .bmp .dib .gif .ppm .pgm .pbm .pnm "
    ".jp2 .j2k .j2c .jpc .jpf .jpx .avif .avifs .tga .pcx .sgi .dds .qoi .mpo .ico .icns".split()
)
# Suffix: module of the Pillow plug-in that reads such files, and its package.
_PLUG_INS = {".jxl": ("pillow_jxl", "pillow-jxl-plugin")}
_PLUG_INS |= dict.fromkeys((".heic", ".heif", ".hif"), ("pillow_heif", "pillow-heif"))
# Image formats that are not supported; they are listed so that such files are reported.
_OTHER = frozenset(
    ".dng .cr2 .cr3 .crw .nef .nrw .arw .sr2 .srf .srw .orf .rw2 .raf .pef .x3f .3fr .iiq "
    ".svg .svgz .eps .psd .xcf .exr .hdr .pfm .pam .bpg .jxr .wdp .wmf .emf .fits .jls".split()
)


def suffixes() -> frozenset[str]:
    """Returns the lower-case suffixes of images that can be read with the installed packages."""
    return _PILLOW.union(suffix for suffix, (name, _) in _PLUG_INS.items() if _is_installed(name))


def is_any_image(name: str | PurePath) -> bool:
    """Returns True if the suffix is that of an image, supported or not."""
    return PurePath(name).suffix.lower() in _PILLOW | _PLUG_INS.keys() | _OTHER


def left_out(names: Iterable[str | PurePath]) -> str:
    """Returns a sentence about the images among the names that cannot be read, "" if all can."""
    kinds = Counter(PurePath(name).suffix.lower() for name in names if is_any_image(name))
    missing = sorted(kinds.keys() - suffixes())
    number = sum(kinds[kind] for kind in missing)
    reasons = (
        f"{kind} needs {_PLUG_INS[kind][1]}" if kind in _PLUG_INS else f"{kind} cannot be read"
        for kind in missing
    )
    return f"{number} file{'s' * (number > 1)} left out: {', '.join(reasons)}" if number else ""


def find(pattern: str, wanted: Callable[[str], bool]) -> list[str]:
    """Returns the sorted paths of the files that match and whose name, without folders, is wanted.

    The pattern is a folder, which is searched with all folders below it, a glob, or a file; `~` is
    the home folder. Hidden files are skipped, and outside buckets also hidden folders. Raises
    UserError if the pattern is empty or the place cannot be listed.
    """
    if not pattern:
        raise UserError("the name of the images is empty: give a folder or . for the current one")
    remote = is_remote(pattern)
    if remote and "**" in pattern:
        raise UserError(
            f"{pattern}: ** does not work in buckets: give the folder, it is searched recursively"
        )
    try:
        found = _remote(pattern) if remote else _local(Path(pattern).expanduser())
        return sorted(path for path in found if wanted(PurePath(path).name))
    except Exception as error:  # Clients of storage services raise errors of many types.
        place = getattr(error, "filename", None) or pattern
        raise UserError(
            f"{place}: cannot be listed ({reason(error)}): check the name and your permission"
            + ", and that gcsfs is installed" * remote
        ) from error


def is_remote(path: str) -> bool:
    """Returns True for an address in a bucket, such as gs://bucket/name."""
    return "://" in path


def reason(error: BaseException) -> str:
    """Returns the message of an exception in one line, without the file name of an OSError."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__


@contextlib.contextmanager
def explained(problem: str, remedy: str) -> Iterator[None]:
    """Turns any exception in the block into a UserError: the problem, the reason and the remedy."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # The types depend on what is damaged or missing.
        raise UserError(f"{problem} ({reason(error)}): {remedy}") from error


def walk(folder: Path, failed: Callable[[OSError], None]) -> Iterator[Path]:
    """Yields all files below a folder, sorted, without hidden ones; links are followed.

    `failed` is called with an error for each folder that cannot be read. What cannot be examined,
    such as a broken link, counts as a file, so that reading it reports the reason.
    """
    seen = set()
    for parent, folders, names in os.walk(folder, onerror=failed, followlinks=True):
        real = os.path.realpath(parent)
        # If a folder cannot be entered, names are listed, but no file can be opened.
        if real in seen or not _may(parent, os.X_OK, failed):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in (Path(parent, name) for name in sorted(names) if not name.startswith(".")):
            if os.path.isfile(file) or not os.path.exists(file):
                yield file


def matches(pattern: Path, failed: Callable[[OSError], None]) -> list[str]:
    """Returns the sorted matches of a glob; `failed` gets an error for each unreadable folder."""
    base = fixed_part(pattern)
    pattern = Path(glob.escape(str(base)), *pattern.parts[len(base.parts) :])
    folders = {str(base)} if base.is_dir() else set()
    for end in range(len(base.parts) + 1, len(pattern.parts)):
        folders.update(glob.glob(f"{Path(*pattern.parts[:end])}/", recursive=True))
    for folder in sorted(folders):
        _may(folder, os.R_OK | os.X_OK, failed)
    return sorted(glob.glob(str(pattern), recursive=True))


def fixed_part(pattern: Path) -> Path:
    """Returns the folders of a glob before its first wildcard, which relative names start from.

    Brackets in the name of an existing folder, such as `photos [2020]`, are no wildcard.
    """
    parts = pattern.parts
    magic = (i for i, part in enumerate(parts) if glob.has_magic(part))
    first = next((i for i in magic if not os.path.isdir(Path(*parts[: i + 1]))), len(parts) - 1)
    return Path(*parts[:first])


def _local(path: Path) -> Iterable[str]:
    if path.is_dir():
        return map(str, walk(path, _raise))
    names = [str(path)] if path.is_file() else matches(path, _raise)
    if not names and path.parent.is_dir():
        os.scandir(path.parent).close()  # Raises if there is no permission, which glob hides.
    return filter(os.path.isfile, names)


def _remote(pattern: str) -> Iterable[str]:
    path = epath.Path(pattern)
    if path.is_dir():
        found = [f"{folder}/{name}" for folder, _, names in path.walk() for name in names]
    elif not glob.has_magic(pattern):
        found = [pattern] * path.exists()
    else:
        scheme, _, rest = pattern.partition("://")
        bucket, _, inner = rest.partition("/")
        found = map(str, epath.Path(f"{scheme}://{bucket}").glob(inner))
    return [file for file in found if not PurePath(file).name.startswith(".")]


def _may(folder: str, mode: int, failed: Callable[[OSError], None]) -> bool:
    """Returns True if a folder may be used so, and calls `failed` with an error if not."""
    if not (allowed := os.access(folder, mode)):
        failed(PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder))
    return allowed


def _raise(error: OSError) -> NoReturn:
    raise error


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
