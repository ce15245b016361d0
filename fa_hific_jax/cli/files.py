"""Which files a command reads, which it writes, and that writing them destroys nothing."""

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
from fa_hific_jax.data.image_names import fixed_part, is_any_image, left_out, matches, walk
from fa_hific_jax.errors import UserError, reason, say, shown
from fa_hific_jax.writing import TargetExists

COMPRESSED = ".fahj"
COMPRESSED_SUFFIXES = frozenset({COMPRESSED})
# The last bytes of a whole image.
_ENDS = {".png": b"IEND\xaeB`\x82", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}

Contents = Mapping[Path, bytes | OSError]
"""What was read of files that can be read only once, or why that failed."""


class Found(NamedTuple):
    """A file to read, and its path relative to the folder or glob that led to it."""

    path: Path
    relative: Path


class Findings(NamedTuple):
    """Files to read, and a sentence for each input or folder that could not be looked into."""

    files: list[Found]
    unread: list[str]


class Job(NamedTuple):
    """A file to read and the file to write."""

    source: Path
    target: Path


def find(inputs: Sequence[str], suffixes: frozenset[str]) -> Findings:
    """The files that the inputs name: files, folders with all below them, globs (also quoted).

    In folders and globs only files with one of the suffixes count, in either case, and hidden ones
    do not. Where images are searched for, those that cannot be read here are counted on standard
    error. Raises UserError at an input that leads to nothing.
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
    """Each file with the one to write: beside it, as the file `out`, or within the folder `out`.

    `out` is a file where the only input is one and no folder of that name exists. A file found
    twice is one job. What comes from standard input or /dev/fd goes to standard output.
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
        raise UserError(f"{out}: is a file, and several files need a folder: give another -o")
    elif not out.endswith(("/", os.sep)) and not os.path.isdir(out) and _names_a_file(out):
        raise UserError(
            f"{out}: is the name of a file, and several files need a folder: give another -o, "
            f"or {out}/ if it is to be a folder"
        )
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


def check_targets(jobs: Sequence[Job], force: bool, skip_existing: bool = False) -> list[Job]:
    """The jobs that are to be done: all, or those without a target where existing ones are skipped.

    Raises UserError where writing would destroy an input, or a file without `force`, and where
    bytes would go to a terminal. Pipes and devices are written to and count as free.
    """
    sources = {os.path.realpath(job.source) for job in jobs}
    files = [job for job in jobs if not streams.is_stream(job.target)]
    if len(files) < len(jobs) and any(streams.is_terminal(job.target) for job in jobs):
        raise UserError("the output is a terminal: redirect it to a file or a pipe, or give -o")
    for job in files:
        if os.path.realpath(job.target) in sources:
            raise UserError(f"{job.target}: is an input, it cannot be the output too: give -o")
        if os.path.isdir(job.target):
            raise UserError(f"{job.target}: is a folder where a file is to be written: give -o")
    existing = [job.target for job in files if os.path.lexists(job.target)]
    if skip_existing and existing:
        say(f"{len(existing)} of {len(jobs)} files are there already and stay as they are")
        there = set(existing)
        return [job for job in jobs if job.target not in there]
    if existing and not force:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UserError(
            f"{existing[0]}{more}: there already: give --force to overwrite, or another -o"
        )
    return list(jobs)


def not_whole(jobs: Sequence[Job], done: Sequence[Job]) -> list[str]:
    """A sentence for each target of a job that is not among those to be done and is cut off.

    Such files are left by a copy that was stopped, or by a shell that made the file beforehand.
    """
    left = {job.target for job in jobs} - {job.target for job in done}
    return [
        f"{shown(target)}: is there already and is not a whole file: delete it, or give --force"
        for target in sorted(left)
        if not _is_whole(target)
    ]


def _is_whole(path: Path) -> bool:
    from fa_hific_jax.codec.bitstream import BitstreamError, unpack

    try:
        data = path.read_bytes()
        if path.suffix.lower() == COMPRESSED:
            unpack(data)
    except BitstreamError:
        return False
    except OSError:  # It cannot be judged.
        return True
    return bool(data) and data.rstrip(b"\0").endswith(_ENDS.get(path.suffix.lower(), b""))


@contextlib.contextmanager
def leaving_existing(skip_existing: bool) -> Iterator[None]:
    """Lets the block end well where another process has just written its target."""
    try:
        yield
    except TargetExists:
        if not skip_existing:
            raise


@contextlib.contextmanager
def open_streams(jobs: Sequence[Job]) -> Iterator[Contents]:
    """Yields what was read of the sources that can be read only once; holds named pipes open.

    To be used in the main thread, where a signal ends the wait for the other end of a pipe.
    """
    contents = _read_once(jobs)
    with contextlib.ExitStack() as stack:
        for path in {job.target for job in jobs}:
            if streams.is_read_once(path) and streams.descriptor_of(path) is None:
                with contextlib.suppress(OSError):  # It fails again when the file is written.
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
        except OSError as error:  # It is named when its turn comes.
            contents[path] = error
    return contents


def opened(path: Path, contents: Contents) -> io.BufferedIOBase:
    """The file opened to be read, or its content as a file where `open_streams` has it."""
    if path not in contents:
        return path.open("rb")
    content = contents[path]
    if isinstance(content, OSError):
        raise content
    file = io.BytesIO(content)
    file.name = str(path)  # in the sentences of errors
    return file


def source_name(text: str) -> str:
    """An input as it was given; `-` is standard input. The type of an argument."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name; the current folder is called .")
    return str(streams.STDIN) if text == "-" else text


def target_name(text: str) -> str:
    """An output with `~` expanded; `-` is standard output. The type of an argument."""
    return str(streams.STDOUT) if text == "-" else path_name(text)


def path_name(text: str) -> str:
    """A file or folder with `~` expanded. The type of an argument."""
    if text in ("", "-"):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a file or folder")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise argparse.ArgumentTypeError(f"{text!r}: no such home folder; ./{text} is a name")
    return expanded


def has_image_suffix(path: Path) -> bool:
    """Returns True for a name that other programs take for an image's."""
    kind = mimetypes.guess_type(path.name)[0] or ""
    return is_any_image(path) or kind.startswith("image/")


def _names_a_file(out: str) -> bool:
    return Path(out).suffix.lower() == COMPRESSED or has_image_suffix(Path(out))


def _checked(path: Path, mode: int) -> Path:
    """The path, unless it is that of a device, which might never end."""
    regular = stat.S_ISREG(mode) or stat.S_ISFIFO(mode)
    if not regular and streams.descriptor_of(path) is None:
        raise UserError(
            f"{shown(path)}: is a device or a socket: give a file, or - for standard input"
        )
    return path


def _matches(text: str, path: Path, failed: Callable[[OSError], None]) -> list[Found]:
    """The files that a glob matches; raises UserError where the text is the name of nothing."""
    names = matches(path, failed) if glob.has_magic(text) else []
    if not names and not set("*?").intersection(text):  # Brackets may be part of a name.
        raise UserError(f"{shown(text)}: no such file or folder")
    base = fixed_part(path)
    return [Found(Path(n), Path(n).relative_to(base)) for n in names if os.path.isfile(n)]
