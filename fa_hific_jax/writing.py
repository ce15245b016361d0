"""Writes files and folders whole: under a random temporary name, renamed at the end.

A process that fails or is killed leaves the target as it was. docs/outputs.md has the rules for
existing files, symbolic links, permissions, pipes, and targets that cannot be renamed. With
`replace=False` an existing target stays, even one that appeared during the writing.
"""

import contextlib
import errno
import io
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from fa_hific_jax import streams
from fa_hific_jax.errors import UserError
from fa_hific_jax.streams import StrPath

PREFIX, SUFFIX = ".fa-hific-", ".tmp"

# Age of an abandoned file by the clock of the file system: hosts need not agree on the time.
_STALE_SECONDS = 24 * 3600
# Reasons why renaming fails where overwriting may work: a mount point, another file system, another
# user's file in a folder such as /tmp, and a folder without write permission.
_NOT_BY_RENAMING = (errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES, errno.EROFS)
_swept: set[Path] = set()
_unfinished: set[Path] = set()


class TargetExists(UserError):
    """The target exists already and must not be replaced."""

    def __init__(self, path: StrPath):
        super().__init__(f"{path}: exists already: give --force to overwrite it, or another -o")


def write(path: Any, data: bytes, *, replace: bool = True) -> None:
    """Writes bytes as the file at `path`, whole or not at all.

    Works and raises like `whole_file`. A cloud path (etils' epath, "gs://...") is written directly,
    because an object store shows an object only once it is complete.
    """
    if "://" in str(path):
        path.write_bytes(data)
        return
    with whole_file(path, replace=replace) as file:
        file.write(data)


@contextlib.contextmanager
def whole_file(path: StrPath, *, replace: bool = True) -> Iterator[BinaryIO]:
    """Yields an open, seekable binary file whose content moves to `path` when the block ends.

    Missing folders are created. An error in the block leaves `path` unchanged.

    Raises:
      TargetExists: something other than a stream is at `path`, and `replace` is False.
      UserError: `path` is a block device or a socket, or overwriting in place failed halfway.
      OSError: the operating system cannot write `path`; the error names the reason.
    """
    if streams.is_stream(path):
        buffer = io.BytesIO()
        yield buffer
        streams.send(buffer.getvalue(), path)
        return
    with whole_path(path, replace=replace) as temporary, open(temporary, "r+b") as file:
        yield file


@contextlib.contextmanager
def whole_path(path: StrPath, *, replace: bool = True) -> Iterator[Path]:
    """Like `whole_file`, but yields the name of an empty file instead of an open one.

    This serves libraries that open their files themselves. `path` must not be a stream.
    """
    target = _followed(path)
    if os.path.lexists(path):
        if not replace:
            raise TargetExists(path)
        if target.exists() and not (target.is_file() or target.is_dir()):
            raise UserError(f"{path}: is neither a file nor a pipe: name another output")
    # Other users can read a new file, but not the copy of one that they perhaps cannot read.
    mode = 0o600 if target.exists() else 0o666
    with _temporary(target, path) as temporary:
        os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode))
        _remove_leftovers(temporary)
        yield temporary
        _sync(temporary)
        _keep_permissions(target, temporary)
        try:
            (os.replace if replace else _take_free_name)(temporary, target)
            renamed = True
        except FileExistsError as error:
            raise TargetExists(path) from error
        except OSError as error:
            if error.errno not in _NOT_BY_RENAMING or not os.access(target, os.W_OK):
                raise
            renamed = False
    if not renamed:
        _overwrite(temporary, target)
    temporary.unlink(missing_ok=True)


def write_folder(folder: StrPath, files: Mapping[str, bytes], *, replace: bool = False) -> None:
    """Writes a folder that holds exactly `files` (name -> content), whole or not at all.

    A folder that cannot be renamed, such as the mount point of a container, is filled file by file.
    The last of `files` should therefore be the one that identifies the content.

    Raises:
      TargetExists: the folder is not empty, and `replace` is False.
      OSError: the operating system cannot write the folder; the error names the reason.
    """
    target = _followed(folder)
    try:
        with _temporary(target, folder) as temporary:
            temporary.mkdir()
            _remove_leftovers(temporary)
            for name, data in files.items():
                (temporary / name).write_bytes(data)
                _sync(temporary / name)
            _keep_permissions(target, temporary)
            _take_folder_name(temporary, target, replace)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise TargetExists(folder) from error
        if error.errno not in _NOT_BY_RENAMING or not target.is_dir():
            raise
        others = [path for path in target.iterdir() if path.is_file()]
        if others and not replace:
            raise TargetExists(folder) from error
        for path in others:
            if path.name not in files:
                path.unlink()
        for name, data in files.items():
            write(target / name, data)


def remove_unfinished() -> None:
    """Removes the temporary files of all threads, just before the process ends without them."""
    for path in list(_unfinished):
        _remove(path)


def _remove(path: Path) -> None:
    """Removes a file or folder, if it is there and can be removed."""
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink()


def _followed(path: StrPath) -> Path:
    """Returns the path, or its target if the path is a symbolic link."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)


@contextlib.contextmanager
def _temporary(target: Path, path: StrPath) -> Iterator[Path]:
    """Yields a new name beside `target`, and removes what has it if the block or the process fails.

    The name is in the system's temporary folder if only the target itself can be written to. An
    OSError that names it, or no file as that of a full disk, names `path` instead.
    """
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # "File exists" would not tell the user what is wrong.
        raise NotADirectoryError(errno.ENOTDIR, "is not a folder", str(folder)) from error
    if target.is_file() and os.access(target, os.W_OK) and not os.access(folder, os.W_OK):
        folder = Path(tempfile.gettempdir())
    temporary = folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
    _unfinished.add(temporary)
    try:
        yield temporary
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, OSError):
            unnamed = error.errno is not None and error.filename is None
            if unnamed or str(error.filename).startswith(str(temporary)):
                error.filename = str(path)
        raise
    finally:
        _unfinished.discard(temporary)


def _keep_permissions(target: Path, temporary: Path) -> None:
    """Copies owner, group and mode of the target, if it exists, to what replaces it."""
    if target.exists():
        old = target.stat()
        with contextlib.suppress(OSError):  # Only the administrator may give files away.
            os.chown(temporary, old.st_uid, old.st_gid)
        with contextlib.suppress(OSError):  # Some file systems have no permissions.
            os.chmod(temporary, stat.S_IMODE(old.st_mode))


def _sync(path: Path) -> None:
    """Waits until the content is on the disk, which the rename might otherwise reach before it."""
    with open(path, "r+b") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:  # Some network file systems cannot wait.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
                raise


def _take_free_name(temporary: Path, target: Path) -> None:
    """Renames the finished file to its target; raises FileExistsError if that name is taken."""
    try:
        os.link(temporary, target)
    except OSError:  # The name is taken, or the file system has no hard links.
        if os.path.lexists(target):
            raise FileExistsError from None
        os.replace(temporary, target)


def _overwrite(temporary: Path, target: Path) -> None:
    try:
        with open(temporary, "rb") as source, open(target, "r+b") as file:
            shutil.copyfileobj(source, file)
            file.truncate()
        _sync(target)
    except OSError as error:
        raise UserError(
            f"{target}: overwriting it in place failed ({error.strerror}): "
            f"take the complete new content from {temporary}"
        ) from error


def _take_folder_name(temporary: Path, target: Path, replace: bool) -> None:
    """Renames a folder to its target, which must be empty or absent unless `replace` is True."""
    aside = None
    if replace and target.is_dir() and any(target.iterdir()):
        aside = target.with_name(f"fa-hific-replaced-{secrets.token_hex(8)}")
        target.rename(aside)
    try:
        temporary.rename(target)
    except OSError:
        if aside:
            aside.rename(target)
        raise
    if aside:
        shutil.rmtree(aside, ignore_errors=True)


def _remove_leftovers(fresh: Path) -> None:
    """Removes the files of killed processes beside the one just created, once for each folder.

    Only its age tells such a file from that of a process on another host that is still writing.
    """
    folder = fresh.parent.absolute()
    if folder not in _swept:
        _swept.add(folder)
        now = fresh.stat().st_mtime
        for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
            with contextlib.suppress(OSError):
                if now - path.lstat().st_mtime > _STALE_SECONDS:
                    _remove(path)
