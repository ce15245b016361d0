"""Which files a command reads, which it writes, and that writing them destroys nothing."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fa_hific_jax.errors import UserError

COMPRESSED = ".fahj"
COMPRESSED_SUFFIXES = frozenset({COMPRESSED})
# Those that folders and globs are searched for; a file given by name may have any suffix.
IMAGE_SUFFIXES = frozenset(
    ".png .apng .jpg .jpeg .jfif .webp .tif .tiff .bmp .gif .ppm .pgm .pbm .pnm .jp2 .avif".split()
)


class Found(NamedTuple):
    """A file to read, and its path relative to the folder or glob that led to it."""

    path: Path
    relative: Path


class Job(NamedTuple):
    """A file to read and the file to write."""

    source: Path
    target: Path


def find(inputs: Sequence[str], suffixes: frozenset[str]) -> list[Found]:
    """The files that the inputs name: files, folders with all below them, globs (also quoted).

    In folders and globs only files with one of the suffixes count, in either case, and hidden ones
    do not. Raises UserError at an input that leads to nothing.
    """
    found = []
    for text in inputs:
        path = Path(text).expanduser()
        if path.is_dir():
            files = [Found(file, file.relative_to(path)) for file in _walk(path)]
        elif path.exists():
            found.append(Found(path, Path(path.name)))
            continue
        elif glob.has_magic(text):
            base = _fixed_part(path)
            matches = (Path(name) for name in sorted(glob.glob(str(path), recursive=True)))
            files = [Found(file, file.relative_to(base)) for file in matches if file.is_file()]
        else:
            raise UserError(f"{text}: no such file or folder")
        files = [file for file in files if file.path.suffix.lower() in suffixes]
        if not files:
            kinds = " ".join(sorted(suffixes))
            raise UserError(f"{text}: no file here ends in {kinds}: give a file by its name")
        found.extend(files)
    return found


def pair(inputs: Sequence[str], found: Sequence[Found], out: str | None, suffix: str) -> list[Job]:
    """Each file with the one to write: beside it, as the file `out`, or within the folder `out`.

    `out` is a file where the only input is one and no folder of that name exists. A file found
    twice is one job.
    """
    one_file = len(inputs) == 1 and len(found) == 1 and Path(inputs[0]).expanduser().is_file()
    if out is None:
        targets = [file.path.with_suffix(suffix) for file in found]
    elif one_file and not (out.endswith(("/", os.sep)) or Path(out).is_dir()):
        targets = [Path(out)]
    elif Path(out).is_file():
        raise UserError(f"{out}: is a file, and several files need a folder: give another -o")
    else:
        targets = [Path(out) / file.relative.with_suffix(suffix) for file in found]
    jobs = {}
    for file, target in zip(found, targets, strict=True):
        job = jobs.setdefault(os.path.abspath(target), Job(file.path, target))
        if os.path.abspath(job.source) != os.path.abspath(file.path):
            raise UserError(
                f"{job.source} and {file.path} would both become {target}: "
                "give them in two commands with different -o"
            )
    return list(jobs.values())


def check_targets(jobs: Sequence[Job], force: bool) -> None:
    """Raises UserError where writing would destroy an input, or a file without `force`."""
    sources = {os.path.realpath(job.source) for job in jobs}
    for job in jobs:
        if os.path.realpath(job.target) in sources:
            raise UserError(f"{job.target}: is an input, it cannot be the output too: give -o")
        if job.target.is_dir():
            raise UserError(f"{job.target}: is a folder where a file is to be written: give -o")
    existing = [job.target for job in jobs if os.path.lexists(job.target)]
    if existing and not force:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UserError(
            f"{existing[0]}{more}: there already: give --force to overwrite, or another -o"
        )


def _walk(folder: Path) -> Iterator[Path]:
    """All files below, sorted, hidden ones apart; links are followed, but not in circles."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = (Path(parent, name) for name in sorted(names) if not name.startswith("."))
        yield from (file for file in files if file.is_file())


def _fixed_part(pattern: Path) -> Path:
    """The folders of a glob before its first wildcard: where relative names begin."""
    parts = pattern.parts
    magic = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:magic])
