"""Finds the files that a command reads and writes, and checks that writing destroys nothing."""

import argparse
import contextlib
import glob
import io
import mimetypes
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fa_hific_jax import streams
from fa_hific_jax.codec import SUFFIX
from fa_hific_jax.data.image_names import fixed_part, is_any_image, left_out, matches, walk
from fa_hific_jax.errors import UserError, reason, say, shown
from fa_hific_jax.writing import TargetExists

# The last bytes of a complete image, for formats that have a fixed end.
_ENDS = {".png": b"IEND\xaeB`\x82", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}

Contents = Mapping[Path, bytes | OSError]
"""Content of the sources that can be read only once, or the error that reading them gave."""


class Found(NamedTuple):
    """A file to read, and its path relative to the folder or glob that led to it."""

    path: Path
    relative: Path


class Findings(NamedTuple):
    """Files to read, and a sentence for each input or folder that could not be searched."""

    files: list[Found]
    unread: list[str]


class Job(NamedTuple):
    """A file to read and the file to write."""

    source: Path
    target: Path


def find(inputs: Sequence[str], suffixes: frozenset[str]) -> Findings:
    """Returns the files that the inputs name: files, folders with all subfolders, and globs.

    In folders and globs, only files count that are not hidden and have one of the suffixes, in
    lower or upper case. If the suffixes are those of images, standard error gets the number of
    images of kinds that this installation cannot read.

    Raises:
      UserError: an input leads to no file.
    """
    found, unread = [], []

    def failed(error: OSError) -> None:
        unread.append(reason(error))

    for text in inputs:
        path, before = Path(os.path.expanduser(text)), len(unread)
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            files = _matches(text, path, failed)
        except OSError as error:
            failed(error)
            continue
        else:
            if not stat.S_ISDIR(mode):
                found.append(Found(_checked(path, mode), Path(path.name)))
                continue
            files = [Found(file, file.relative_to(path)) for file in walk(path, failed)]
        wanted = [file for file in files if file.path.suffix.lower() in suffixes]
        omitted = left_out(file.path for file in files) if ".png" in suffixes else ""
        if not wanted and len(unread) == before:
            kinds, more = " ".join(sorted(suffixes)), f" ({omitted})" if omitted else ""
            raise UserError(
                f"{shown(text)}: no file here ends in {kinds}{more}: give a file by its name"
            )
        if omitted:
            say(f"{shown(text)}: {omitted}")
        found.extend(wanted)
    return Findings(found, unread)


def pair(inputs: Sequence[str], found: Sequence[Found], out: str | None, suffix: str) -> list[Job]:
    """Returns each file with the one to write: beside it, the file `out`, or in the folder `out`.

    `out` names a file if the only input is a file and no folder of that name exists. A file that is
    found twice gives one job. Without `out`, an input from standard input or /dev/fd goes to
    standard output.

    Raises:
      UserError: several files cannot be written to `out`, or two of them would get the same name.
    """
    given = Path(os.path.expanduser(inputs[0]))
    one_file = len(inputs) == 1 and len(found) == 1 and found[0].path == given
    if out is None:
        targets = [
            file.path.with_suffix(suffix)
            if streams.descriptor_of(file.path) is None
            else streams.STDOUT
            for file in found
        ]
    elif one_file and not (out.endswith(("/", os.sep)) or os.path.isdir(out)):
        targets = [Path(out)]
    elif streams.is_stream(out):
        raise UserError(f"{out}: takes a single file, given by its name: give a folder as -o")
    elif os.path.isfile(out):
        raise UserError(f"{out}: is a file, but several files need a folder: give another -o")
    elif not out.endswith(("/", os.sep)) and not os.path.isdir(out) and _names_a_file(out):
        raise UserError(
            f"{out}: is the name of a file, but several files need a folder: give another -o, "
            f"or {out}/ to make a folder of that name"
        )
    else:
        targets = [Path(out) / file.relative.with_suffix(suffix) for file in found]
    jobs = {}
    for file, target in zip(found, targets, strict=True):
        job = jobs.setdefault(os.path.abspath(target), Job(file.path, target))
        if os.path.abspath(job.source) != os.path.abspath(file.path):
            raise UserError(
                f"{job.source} and {file.path} would both become {target}: "
                "use two commands with different -o"
            )
    return list(jobs.values())


def check_targets(jobs: Sequence[Job], force: bool, skip_existing: bool = False) -> list[Job]:
    """Returns the jobs to be done: with `skip_existing`, those without a target; otherwise all.

    Pipes and devices do not count as existing.

    Raises:
      UserError: writing would destroy an input, or an existing file without `force`, or the output
        is a terminal or a folder.
    """
    sources = {os.path.realpath(job.source) for job in jobs}
    files = [job for job in jobs if not streams.is_stream(job.target)]
    if len(files) < len(jobs) and any(streams.is_terminal(job.target) for job in jobs):
        raise UserError("the output is a terminal: redirect it to a file or a pipe, or give -o")
    for job in files:
        if os.path.realpath(job.target) in sources:
            raise UserError(f"{job.target}: is an input, so it cannot be the output: give -o")
        if os.path.isdir(job.target):
            raise UserError(f"{job.target}: is a folder, but a file is to be written: give -o")
    existing = [job.target for job in files if os.path.lexists(job.target)]
    if skip_existing and existing:
        say(f"{len(existing)} of {len(jobs)} files exist already and stay as they are")
        there = set(existing)
        return [job for job in jobs if job.target not in there]
    if existing and not force:
        if len(existing) == 1:
            raise TargetExists(existing[0])
        raise UserError(
            f"{existing[0]} and {len(existing) - 1} more: exist already: "
            "give --force to overwrite them, or another -o"
        )
    return list(jobs)


def not_whole(jobs: Sequence[Job], done: Sequence[Job]) -> list[str]:
    """Returns a sentence for each skipped target that is incomplete.

    `jobs` are all jobs, `done` those that are not skipped. Incomplete files come from a copy that
    was stopped, or from a shell that created the file beforehand.
    """
    left = {job.target for job in jobs} - {job.target for job in done}
    return [
        f"{shown(target)}: exists already and is incomplete: delete it, or give --force"
        for target in sorted(left)
        if not _is_whole(target)
    ]


def _is_whole(path: Path) -> bool:
    from fa_hific_jax.codec.bitstream import BitstreamError, unpack

    try:
        data = path.read_bytes()
        if path.suffix.lower() == SUFFIX:
            unpack(data)
    except BitstreamError:
        return False
    except OSError:  # It may well be complete.
        return True
    return bool(data) and data.rstrip(b"\0").endswith(_ENDS.get(path.suffix.lower(), b""))


@contextlib.contextmanager
def leaving_existing(skip_existing: bool) -> Iterator[None]:
    """Ignores, with `skip_existing`, that another process has just written the block's target."""
    try:
        yield
    except TargetExists:
        if not skip_existing:
            raise


@contextlib.contextmanager
def open_streams(jobs: Sequence[Job]) -> Iterator[Contents]:
    """Yields the content of the sources that can be read only once; keeps named pipes open.

    Call this in the main thread, where a signal ends the wait for the other end of a pipe.
    """
    contents = _read_once(jobs)
    with contextlib.ExitStack() as stack:
        for path in {job.target for job in jobs}:
            if streams.is_read_once(path) and streams.descriptor_of(path) is None:
                with contextlib.suppress(OSError):  # Writing the file will report the error.
                    stack.enter_context(path.open("wb"))
        yield contents


def _read_once(jobs: Sequence[Job]) -> Contents:
    paths = dict.fromkeys(job.source for job in jobs if streams.is_read_once(job.source))
    if streams.STDIN in paths and sys.stdin is not None and sys.stdin.isatty():
        raise UserError("standard input is a terminal: redirect it from a file or a pipe")
    contents = {}
    for path in paths:
        try:
            contents[path] = streams.receive(path)
        except OSError as error:  # It is reported when the turn of this source comes.
            contents[path] = error
    return contents


def opened(path: Path, contents: Contents) -> io.BufferedIOBase:
    """Opens a file for reading; a source that can be read only once comes from `contents`."""
    if path not in contents:
        return path.open("rb")
    content = contents[path]
    if isinstance(content, OSError):
        raise content
    file = io.BytesIO(content)
    file.name = str(path)  # Error messages need it.
    return file


def source_name(text: str) -> str:
    """Returns an input as it was given; `-` is standard input. The type of an argument."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name: give . for the current folder")
    return str(streams.STDIN) if text == "-" else text


def target_name(text: str) -> str:
    """Returns an output with `~` expanded; `-` is standard output. The type of an argument."""
    return str(streams.STDOUT) if text == "-" else path_name(text)


def path_name(text: str) -> str:
    """Returns a file or folder with `~` expanded. The type of an argument."""
    if text in ("", "-"):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a file or folder")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise argparse.ArgumentTypeError(
            f"{text!r}: no such home folder: give ./{text} if that is the name of a file"
        )
    return expanded


def _path(text: str) -> Path:
    return Path(path_name(text))


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments that the commands for published weights share."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=_path,
        help=".npz file to write (default: in the cache folder)",
    )
    parser.add_argument(
        "--from",
        dest="folder",
        metavar="FOLDER",
        type=_path,
        help="convert the published files in this folder instead of downloading them",
    )


def has_image_suffix(path: Path) -> bool:
    """Returns True if other programs would take the name for that of an image."""
    kind = mimetypes.guess_type(path.name)[0] or ""
    return is_any_image(path) or kind.startswith("image/")


def _names_a_file(out: str) -> bool:
    return Path(out).suffix.lower() == SUFFIX or has_image_suffix(Path(out))


def _checked(path: Path, mode: int) -> Path:
    """Returns the path; raises a UserError for a device, which might never end."""
    regular = stat.S_ISREG(mode) or stat.S_ISFIFO(mode)
    if not regular and streams.descriptor_of(path) is None:
        raise UserError(
            f"{shown(path)}: is a device or a socket: give a file, or - for standard input"
        )
    return path


def _matches(text: str, path: Path, failed: Callable[[OSError], None]) -> list[Found]:
    """Returns the files that a glob matches; raises a UserError if there is no such name."""
    names = matches(path, failed) if glob.has_magic(text) else []
    if not names and not set("*?").intersection(text):  # Brackets may be part of a name.
        raise UserError(f"{shown(text)}: no such file or folder")
    base = fixed_part(path)
    return [Found(Path(n), Path(n).relative_to(base)) for n in names if os.path.isfile(n)]
