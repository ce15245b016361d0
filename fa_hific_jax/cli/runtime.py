"""Sets up what every command with a model needs: quiet libraries and a compile cache."""

import contextlib
import glob
import logging
import os
import re
import warnings
from collections.abc import Iterator
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

    The folder is trimmed here, because JAX's own bound on its size needs another package.
    """
    import jax

    if _folder() is not None:
        return
    # Without a home folder, or with a read-only one, programs are compiled each time.
    with contextlib.suppress(OSError, UserError):
        folder = cache_folder() / "jax"
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        _trim(str(folder))


def _trim(folder: str) -> None:
    """Deletes all but the most recently used files, of CACHE_BYTES together."""
    total = 0
    used = [(max(f.stat().st_atime, f.stat().st_mtime), f) for f in os.scandir(folder)]
    for _, file in sorted(used, key=lambda each: each[0], reverse=True):
        total += file.stat().st_size
        if total > CACHE_BYTES:
            _remove(file.path)


def _folder() -> str | None:
    import jax

    return jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]


def _heal(message: Any, *_: Any, **__: Any) -> None:
    """Removes the cache entries of a program that JAX reports as unreadable in a warning.

    JAX compiles such a program again, but does not overwrite the damaged entry. The names of all
    its entries begin with that of the program.
    """
    told, folder = re.match(_DAMAGED, str(message)), _folder()
    if told and folder:
        for path in glob.glob(f"{glob.escape(folder)}/{glob.escape(told['module'])}-*"):
            _remove(path)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):  # Another process may remove it too.
        os.unlink(path)
