"""Finds the files that a command reads and writes, and checks that writing destroys nothing."""

import argparse
import contextlib
import glob
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fa_hific_jax import streams
from fa_hific_jax.codec import SUFFIX
from fa_hific_jax.data.image_names import fixed_part, is_any_image, left_out, matches, walk
from fa_hific_jax.errors import UserError, reason, say, shown
from fa_hific_jax.writing import TargetExists

# The last bytes of a complete image, for formats that have a fixed end.
_ENDS = {".png": b"IEND\xaeB`\x82", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}


class Found(NamedTuple):
    """A file to read, and its path relative to the folder or glob that led to it."""

    path: Path
    relative: Path


class Job(NamedTuple):
    """A file to read and the file to write."""

    source: Path
    target: Path


def find(inputs: Sequence[str], suffixes: frozenset[str]) -> tuple[list[Found], list[str]]:
    """Returns the files that the inputs name: files, folders with all subfolders, and globs.

    The second result has a sentence for each input or folder that could not be searched. In folders
    and globs, only files count that are not hidden and have one of the suffixes, in lower or upper
    case. Images of kinds that this installation cannot read are counted on standard error.

    Raises:
      UserError: an input leads to no file, or is a device, which might never end.
    """
    found, unread = [], []

    def failed(error: OSError) -> None:
        unread.append(reason(error))

    for text in inputs:
        path, before = Path(os.path.expanduser(text)), len(unread)
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            names = matches(path, failed) if glob.has_magic(text) else []
            if not names and not set("*?").intersection(text):  # Brackets may be part of a name.
                raise UserError(f"{shown(text)}: no such file or folder") from None
            base, paths = fixed_part(path), [Path(name) for name in names if os.path.isfile(name)]
        except OSError as error:
            failed(error)
            continue
        else:
            if stat.S_ISREG(mode) or streams.is_read_once(path):
                found.append(Found(path, Path(path.name)))
                continue
            if not stat.S_ISDIR(mode):
                told = "is a device or a socket: give a file, or - for standard input"
                raise UserError(f"{shown(path)}: {told}")
            base, paths = path, list(walk(path, failed))
        wanted = [file for file in paths if file.suffix.lower() in suffixes]
        omitted = left_out(paths) if ".png" in suffixes else ""
        if not wanted and len(unread) == before:
            kinds, more = " ".join(sorted(suffixes)), f" ({omitted})" if omitted else ""
            raise UserError(
                f"{shown(text)}: no file here ends in {kinds}{more}: give a file by its name"
            )
        if omitted:
            say(f"{shown(text)}: {omitted}")
        found += [Found(file, file.relative_to(base)) for file in wanted]
    return found, unread


def pair(inputs: Sequence[str], found: Sequence[Found], out: str | None, suffix: str) -> list[Job]:
    """Returns each file, once, with the one to write: beside it, `out`, or in the folder `out`.

    `out` names a file if the only input is a file and no folder of that name exists. Without `out`,
    an input from standard input or /dev/fd goes to standard output.

    Raises:
      UserError: several files cannot be written to `out`, or two of them would get the same name.
    """
    given = [Path(os.path.expanduser(text)) for text in inputs]
    alone = len(given) == 1 and given == [file.path for file in found]
    into_folder = out is not None and (out.endswith(("/", os.sep)) or os.path.isdir(out))
    jobs = {}
    for file in found:
        if out is None and streams.descriptor_of(file.path) is not None:
            target = streams.STDOUT
        elif out is None:
            target = file.path.with_suffix(suffix)
        elif alone and not into_folder:
            target = Path(out)
        else:
            named = is_any_image(out) or out.lower().endswith(SUFFIX)
            if not into_folder and (named or streams.is_stream(out) or os.path.isfile(out)):
                raise UserError(
                    f"{out}: is the name of a file, but several files need a folder: give one as "
                    "-o, or a new name that ends in /"
                )
            target = Path(out) / file.relative.with_suffix(suffix)
        job = jobs.setdefault(os.path.abspath(target), Job(file.path, target))
        if os.path.abspath(job.source) != os.path.abspath(file.path):
            raise UserError(
                f"{job.source} and {file.path} would both become {target}: "
                "use two commands with different -o"
            )
    return list(jobs.values())


def check_targets(jobs: Sequence[Job], force: bool) -> None:
    """Raises a UserError if writing would destroy an input, or an existing file without `force`.

    The same if the output is a terminal or a folder. Pipes and devices do not count as existing.
    """
    sources = {os.path.realpath(job.source) for job in jobs}
    if any(streams.is_stream(j.target) and streams.is_terminal(j.target) for j in jobs):
        raise UserError("the output is a terminal: redirect it to a file or a pipe, or give -o")
    targets = [job.target for job in jobs if not streams.is_stream(job.target)]
    for target in targets:
        if os.path.realpath(target) in sources:
            raise UserError(f"{target}: is an input, so it cannot be the output: give -o")
        if os.path.isdir(target):
            raise UserError(f"{target}: is a folder, but a file is to be written: give -o")
    existing = [target for target in targets if os.path.lexists(target)]
    if existing and not force:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise TargetExists(f"{existing[0]}{more}")


def plan_jobs(
    args: argparse.Namespace, suffixes: frozenset[str], target_suffix: str
) -> tuple[list[Job], list[str]]:
    """Returns the files to read and write, and a sentence for each that cannot be used.

    With --skip-existing, jobs whose target exists are left out; an incomplete one, from a copy that
    was stopped, gets a sentence. Raises what `find`, `pair` and `check_targets` raise.
    """
    found, unread = find(args.inputs, suffixes)
    jobs = pair(args.inputs, found, args.output, target_suffix)
    check_targets(jobs, args.force or args.skip_existing)
    if not args.skip_existing:
        return jobs, unread
    existing = {
        job.target
        for job in jobs
        if not streams.is_stream(job.target) and os.path.lexists(job.target)
    }
    if existing:
        say(f"{len(existing)} of {len(jobs)} files exist already and stay as they are")
    what = "exists already and is incomplete: delete it, or give --force"
    unread += [f"{shown(target)}: {what}" for target in sorted(existing) if not _is_whole(target)]
    return [job for job in jobs if job.target not in existing], unread


@contextlib.contextmanager
def open_streams(jobs: Sequence[Job]) -> Iterator[Callable[[Path], io.BufferedIOBase]]:
    """Yields a function that opens a source for reading; keeps named pipes open.

    Sources that can be read only once are read here, in the main thread, where a signal ends the
    wait for the other end of a pipe. Raises a UserError if standard input is a terminal.
    """
    contents: dict[Path, bytes | OSError] = {}
    for path in dict.fromkeys(job.source for job in jobs if streams.is_read_once(job.source)):
        if path == streams.STDIN and sys.stdin is not None and sys.stdin.isatty():
            raise UserError("standard input is a terminal: redirect it from a file or a pipe")
        try:
            contents[path] = streams.receive(path)
        except OSError as error:  # It is reported when the turn of this source comes.
            contents[path] = error

    def opened(path: Path) -> io.BufferedIOBase:
        content = contents.get(path)
        if content is None:
            return path.open("rb")
        if isinstance(content, OSError):
            raise content
        file = io.BytesIO(content)
        file.name = str(path)  # Error messages need it.
        return file

    with contextlib.ExitStack() as stack:
        for path in {job.target for job in jobs}:
            if streams.is_read_once(path) and streams.descriptor_of(path) is None:
                with contextlib.suppress(OSError):  # Writing the file will report the error.
                    stack.enter_context(path.open("wb"))
        yield opened


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
