"""Tells images by their suffix, and lists the files below a folder or those that match a glob."""

import errno
import glob
import importlib.util
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath

_PILLOW = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .webp .tif .tiff .bmp .dib .gif .ppm .pgm .pbm .pnm "
    ".jp2 .j2k .j2c .jpc .jpf .jpx .avif .avifs .tga .pcx .sgi .dds .qoi .mpo .ico .icns".split()
)
# Suffix: module of the Pillow plug-in that reads such files, and its package.
_PLUG_INS = {
    ".jxl": ("pillow_jxl", "pillow-jxl-plugin"),
    ".heic": ("pillow_heif", "pillow-heif"),
    ".heif": ("pillow_heif", "pillow-heif"),
    ".hif": ("pillow_heif", "pillow-heif"),
}
# Image formats that are not supported; they are listed so that such files are reported.
_OTHER = frozenset(
    ".dng .cr2 .cr3 .crw .nef .nrw .arw .sr2 .srf .srw .orf .rw2 .raf .pef .x3f .3fr .iiq "
    ".svg .svgz .eps .psd .xcf .exr .hdr .pfm .pam .bpg .jxr .wdp .wmf .emf .fits .jls".split()
)


def suffixes() -> frozenset[str]:
    """Returns the lower-case suffixes of images that can be read with the installed packages.

    They select files from folders and globs. A file given by its name may have any suffix.
    """
    plugged = {suffix for suffix, (module, _) in _PLUG_INS.items() if _is_installed(module)}
    return _PILLOW | plugged


def is_any_image(name: str | PurePath) -> bool:
    """Returns True if the suffix is that of an image, supported or not."""
    return PurePath(name).suffix.lower() in _PILLOW | _PLUG_INS.keys() | _OTHER


def left_out(names: Iterable[str | PurePath]) -> str:
    """Returns a sentence about the images among the names that cannot be read, "" if all can."""
    readable = suffixes()
    kinds = Counter(PurePath(name).suffix.lower() for name in names if is_any_image(name))
    missing = {kind: number for kind, number in sorted(kinds.items()) if kind not in readable}
    if not missing:
        return ""
    number = sum(missing.values())
    reasons = (
        f"{kind} needs {_PLUG_INS[kind][1]}" if kind in _PLUG_INS else f"{kind} cannot be read"
        for kind in missing
    )
    return f"{number} file{'s' * (number > 1)} left out: {', '.join(reasons)}"


def walk(folder: Path, failed: Callable[[OSError], None]) -> Iterator[Path]:
    """Yields all files below a folder, sorted, without hidden ones.

    Links are followed, but each folder is entered only once. `failed` is called with an error for
    each folder that cannot be read. What cannot be examined, such as a broken link, counts as a
    file, so that reading it reports the reason.
    """
    seen = set()
    for parent, folders, names in os.walk(folder, onerror=failed, followlinks=True):
        real = os.path.realpath(parent)
        entered = os.access(parent, os.X_OK)
        if real in seen or not entered:
            folders.clear()
        if not entered:  # The names can be listed, but no file can be opened.
            failed(PermissionError(errno.EACCES, os.strerror(errno.EACCES), parent))
        if real in seen or not entered:
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = (Path(parent, name) for name in sorted(names) if not name.startswith("."))
        yield from (file for file in files if _may_be_file(file))


def matches(pattern: Path, failed: Callable[[OSError], None]) -> list[str]:
    """Returns the sorted matches of a glob, in which `**` stands for any number of folders.

    `failed` is called with an error for each folder that cannot be searched: `glob` skips those
    without a word.
    """
    base = fixed_part(pattern)
    pattern = Path(glob.escape(str(base)), *pattern.parts[len(base.parts) :])
    folders = {str(base)} if base.is_dir() else set()
    for end in range(len(base.parts) + 1, len(pattern.parts)):
        folders.update(glob.glob(f"{Path(*pattern.parts[:end])}/", recursive=True))
    for folder in sorted(folders):
        if not os.access(folder, os.R_OK | os.X_OK):
            failed(PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder))
    return sorted(glob.glob(str(pattern), recursive=True))


def fixed_part(pattern: Path) -> Path:
    """Returns the folders of a glob before its first wildcard, which relative names start from.

    Brackets in the name of an existing folder are no wildcard: `photos [2020]/*.png` finds the
    images in `photos [2020]`.
    """
    parts = pattern.parts
    magic = (i for i, part in enumerate(parts) if glob.has_magic(part))
    first = next((i for i in magic if not os.path.isdir(Path(*parts[: i + 1]))), len(parts) - 1)
    return Path(*parts[:first])


def _may_be_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
