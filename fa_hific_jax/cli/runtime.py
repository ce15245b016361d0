"""What the commands that run a model set up: silence, and a compile cache that heals."""

import contextlib
import glob
import logging
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fa_hific_jax.codec import shipped
from fa_hific_jax.convert.download import cache_folder
from fa_hific_jax.errors import UserError

MODEL_VARIABLE = "FA_HIFIC_MODEL"
CACHE_BYTES = 2 * 2**30
"""Size above which the least recently used compiled programs are deleted."""

_DAMAGED = "Error reading persistent compilation cache entry for '(?P<module>[^']*)'"


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """Keeps other packages from chattering, and removes damaged entries of the compile cache."""
    # Read by the C++ of JAX when it is loaded.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("jax", "absl", "PIL"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", _DAMAGED)
        warnings.showwarning = _heal
        yield


def model_to_use(given: str | None) -> str:
    """The model of --model, else of the environment, else the one that comes with the package."""
    return given or os.environ.get(MODEL_VARIABLE) or shipped.DEFAULT


def use_compile_cache() -> None:
    """Lets JAX keep compiled programs in the user's cache folder, unless it was told another.

    JAX's own bound, jax_compilation_cache_max_size, needs a further package and fails on entries
    that were written without it, so the folder is trimmed here.
    """
    import jax

    told = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if told is not None:
        return
    with contextlib.suppress(OSError, UserError):  # no home, or a read-only one: compile each time
        folder = cache_folder() / "jax"
        folder.mkdir(parents=True, exist_ok=True)
        trim(folder, CACHE_BYTES)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def trim(folder: Path, most: int) -> None:
    """Deletes the files that were used longest ago until the rest has at most that many bytes."""
    files = []
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # Another process trims too.
            found = entry.stat()
            files.append((max(found.st_atime, found.st_mtime), found.st_size, entry.path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= most:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
            total -= size


def _heal(message: Any, *_: Any, **__: Any) -> None:
    """Removes an entry that JAX cannot read: it compiles anew, and keeps that only in a free place.

    Takes what `warnings.showwarning` is given. The warning tells the name of the program, with
    which the names of all its entries begin.
    """
    import jax

    folder = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    told = re.match(_DAMAGED, str(message))
    if not told or not folder:
        return
    for path in glob.glob(f"{glob.escape(folder)}/{glob.escape(told['module'])}-*"):
        with contextlib.suppress(OSError):
            os.unlink(path)
