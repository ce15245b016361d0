"""Sets up what every command with a model needs: quiet libraries and a compile cache."""

import contextlib
import glob
import logging
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fa_hific_jax.cache import cache_folder
from fa_hific_jax.errors import UserError

CACHE_BYTES = 2 * 2**30
"""Size in bytes above which the least recently used compiled programs are deleted."""

_DAMAGED = "Error reading persistent compilation cache entry for '(?P<module>[^']*)'"


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """Silences the logs of other packages, and removes damaged entries of the compile cache."""
    # The C++ part of JAX reads this variable when it is loaded.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("jax", "absl", "PIL"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", _DAMAGED)
        warnings.showwarning = _heal
        yield


def use_compile_cache() -> None:
    """Makes JAX keep compiled programs in the user's cache folder, unless another one is set.

    JAX's own bound, jax_compilation_cache_max_size, needs another package and fails on entries
    that were written without it. Therefore the folder is trimmed here.
    """
    import jax

    if _folder() is not None:
        return
    # Without a home folder, or with a read-only one, programs are compiled each time.
    with contextlib.suppress(OSError, UserError):
        folder = cache_folder() / "jax"
        folder.mkdir(parents=True, exist_ok=True)
        trim(folder, CACHE_BYTES)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def trim(folder: Path, most: int) -> None:
    """Deletes the least recently used files until the folder has at most `most` bytes."""
    files = []
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # Another process may trim the folder too.
            found = entry.stat()
            files.append((max(found.st_atime, found.st_mtime), found.st_size, entry.path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= most:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
            total -= size


def _folder() -> str | None:
    import jax

    return jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]


def _heal(message: Any, *_: Any, **__: Any) -> None:
    """Removes the cache entries of a program that JAX reports as unreadable.

    JAX compiles such a program again, but does not overwrite the damaged entry. The arguments are
    those of `warnings.showwarning`. The warning names the program, and the names of all its entries
    begin with that name.
    """
    told, folder = re.match(_DAMAGED, str(message)), _folder()
    if not told or not folder:
        return
    for path in glob.glob(f"{glob.escape(folder)}/{glob.escape(told['module'])}-*"):
        with contextlib.suppress(OSError):
            os.unlink(path)
