"""Downloads into the user's cache folder, resumed after a broken connection and checked by hash."""

import contextlib
import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from fa_hific_jax.errors import UserError, shown

_CHUNK = 1 << 16


def download(url: str, path: Path, sha256: str | None, offline: str, timeout: float = 30.0) -> str:
    """Downloads `url` to `path`, unless the file is there already, and returns its SHA-256.

    The download is written to `path` + ".part", which a later call continues. It is renamed to
    `path` only if it is complete and its hash is right. Progress is printed to standard error.

    Args:
      url: an http or https address.
      path: the file to write; missing folders are made.
      sha256: hash of the whole file, in hexadecimal; None accepts any complete file.
      offline: advice for a user who has no network.
      timeout: seconds without data after which the connection counts as broken.

    Raises:
      UserError: the server does not answer or answers with an error, the connection broke (the part
        is kept), the hash is wrong (the part is removed), another process is downloading the file,
        or the folder cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    with contextlib.suppress(UserError):  # It is missing or another file.
        return check_sha256(path, sha256)
    with writable(part):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(part):
            _fetch(url, part, offline, timeout)
            try:
                found = check_sha256(part, sha256)
            except UserError as error:
                part.unlink(missing_ok=True)
                raise UserError(f"{url}: was removed again, because {error}") from error
            os.replace(part, path)
    return found


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turns an error of the operating system into a UserError that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{shown(error.filename or path)}: cannot be written ({error.strerror or error}): free "
            "space, or name another folder (XDG_CACHE_HOME is that of downloads)"
        ) from error


def file_name(url: str) -> str:
    """Returns the name of the file at an address, without what follows a question mark."""
    return url.partition("?")[0].rpartition("/")[2]


def check_sha256(path: Path, sha256: str | None) -> str:
    """Returns the SHA-256 of a file; raises a UserError if it cannot be read or is not `sha256`.

    None as `sha256` accepts any file.
    """
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    if found != (sha256 or found):
        raise UserError(
            f"{path}: has the SHA-256 {found} instead of {sha256}, so it is damaged or a "
            "different file: download it again"
        )
    return found


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[None]:
    """Keeps other processes from appending to `part`; removes it afterwards if it is empty."""
    with open(part, "ab") as file:
        try:
            import fcntl  # Windows does not have it.

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{part}: another process is downloading it: run again when it has finished"
            ) from error
        except (ImportError, OSError):  # a file system without locks
            pass
        try:
            yield
        finally:
            if part.is_file() and not part.stat().st_size:
                part.unlink()


def _fetch(url: str, part: Path, offline: str, timeout: float) -> None:
    """Downloads the rest of `part`, or all of it if the server does not support ranges."""
    have = part.stat().st_size
    headers = {"User-Agent": "fa-hific", **({"Range": f"bytes={have}-"} if have else {})}
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # The part is complete or of another file: the hash will tell.
        answer = f"the server answers {error.code} {error.reason}"
        raise UserError(f"{url}: {answer}: {offline}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url}: cannot be reached ({reason}): {offline}") from error
    resumed = response.status == http.client.PARTIAL_CONTENT
    done = have if resumed else 0
    length = response.headers.get("Content-Length", "")
    total = done + int(length) if length.isdigit() else None
    report = _progress(file_name(url), done, total)
    broken = f"{part} is kept, run the command again to resume"
    with response, open(part, "ab" if resumed else "wb") as file:
        while True:
            try:
                chunk = response.read(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise UserError(f"{url}: the connection broke ({error}): {broken}") from error
            file.write(chunk)
            done += len(chunk)
            report(done, not chunk)
            if not chunk:
                break
    if total is not None and done < total:
        after = f"after {_size(done)} of {_size(total)}"
        raise UserError(f"{url}: the connection broke {after}: {broken}")


def _progress(name: str, start: int, total: int | None) -> Callable[[int, bool], None]:
    """Returns a function that prints progress, given the bytes so far and True at the end.

    It updates one line on a terminal, otherwise it prints a line every 10 seconds.
    """
    terminal, begun = sys.stderr.isatty(), time.monotonic()
    shown_at = begun

    def report(done: int, last: bool) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if last or now - shown_at >= (0.2 if terminal else 10.0):
            shown_at = now
            line = progress_line(name, done, total, (done - start) / (now - begun + 1e-9))
            end = "\n" if last or not terminal else ""
            print(f"\r{line}\x1b[K" if terminal else line, end=end, file=sys.stderr, flush=True)

    return report


def progress_line(name: str, done: int, total: int | None, rate: float) -> str:
    """Returns a line such as "a.pth  12.0 MB of 244.4 MB  8.1 MB/s  29 s left".

    Sizes are in bytes, `rate` is in bytes per second.
    """
    line = f"{name}  {_size(done)}"
    if total is not None and done < total:
        line += f" of {_size(total)}"
    line += f"  {_size(round(rate))}/s"
    if total is not None and done < total and rate > 0:
        minutes, seconds = divmod(round((total - done) / rate), 60)
        line += f"  {minutes} min {seconds:02d} s left" if minutes else f"  {seconds} s left"
    return line


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
