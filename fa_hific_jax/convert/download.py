"""Downloads into the user's cache folder, resumed after a broken connection and checked by hash."""

import contextlib
import hashlib
import http.client
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fa_hific_jax.errors import UserError, shown


def download(url: str, path: Path, sha256: str | None, offline: str, timeout: float = 30.0) -> str:
    """Downloads `url` to `path`, unless the file is there already, and returns its SHA-256.

    The download is written to `path` + ".part", which a later call continues. It is renamed to
    `path` only if it is complete and its hash is `sha256`; None accepts any complete file. After
    `timeout` seconds without data the connection counts as broken.

    Raises:
      UserError: the server does not give the file (the message ends with `offline`, the advice for
        a user without a network), the connection broke (the part is kept), the hash is wrong (the
        part is removed), another process is downloading the file, or it cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    with contextlib.suppress(UserError):  # It is missing or another file.
        return check_sha256(path, sha256)
    with writable(part):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "ab") as file:
            _lock(file)
            try:
                _fetch(url, file, offline, timeout)
            finally:
                if not file.tell():
                    part.unlink()
        with removed_if_bad(part, url):
            found = check_sha256(part, sha256)
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


@contextlib.contextmanager
def removed_if_bad(path: Path, url: str) -> Iterator[None]:
    """Removes a download if the block raises a UserError, which then says so."""
    try:
        yield
    except UserError as error:
        path.unlink(missing_ok=True)
        raise UserError(f"{url}: was removed again, because {error}") from error


def file_name(url: str) -> str:
    """Returns the name of the file at an address, without what follows a question mark."""
    return url.partition("?")[0].rpartition("/")[2]


def check_sha256(path: Path, sha256: str | None) -> str:
    """Returns the SHA-256 of a file; raises a UserError unless it is `sha256`, if that is given."""
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


def _lock(part: BinaryIO) -> None:
    """Keeps other processes from appending to the file until it is closed."""
    try:
        import fcntl  # Windows does not have it.

        fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"{part.name}: another process is downloading it: run again when it has finished"
        ) from error
    except (ImportError, OSError):  # a file system without locks
        pass


def _fetch(url: str, part: BinaryIO, offline: str, timeout: float) -> None:
    """Appends the rest of a download, or starts again if the server does not support ranges."""
    have = part.tell()
    headers = {"User-Agent": "fa-hific", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        request = urllib.request.Request(url, headers=headers)
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
    if response.status != http.client.PARTIAL_CONTENT:
        part.seek(0)
        part.truncate()
    try:
        with response:
            _append(response, part, file_name(url))
    except (
        EOFError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError
    ) as error:  # fmt: skip
        raise UserError(
            f"{url}: the connection broke ({error}): {part.name} is kept, run the command again to "
            "resume"
        ) from error


def _append(response: http.client.HTTPResponse, part: BinaryIO, name: str) -> None:
    """Appends what the server sends and prints progress; raises an EOFError if it is not all."""
    start, length = part.tell(), response.headers.get("Content-Length", "")
    total = start + int(length) if length.isdigit() else None
    begun = told = time.monotonic()
    chunk = b" "
    while chunk:
        chunk = response.read(1 << 16)
        part.write(chunk)
        done, now = part.tell(), time.monotonic()
        # On a terminal, one line is updated; elsewhere only the last one is printed.
        if not chunk or (sys.stderr.isatty() and now - told > 0.2):
            told, rate = now, (done - start + 1) / (now - begun + 1e-9)
            size = f"{done / 1e6:.2f}" + (f" of {total / 1e6:.2f}" if total else "")
            left = f", {(total - done) / rate:.0f} s left" if total else ""
            line = f"{name}  {size} MB at {rate / 1e6:.1f} MB/s{left}"
            print(f"{line:79}", end="\r" if chunk else "\n", file=sys.stderr, flush=True)
    if total and part.tell() < total:
        raise EOFError(f"after {size} MB")
