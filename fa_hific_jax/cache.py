"""Finds the folder where downloads, converted models and compiled programs are kept."""

import os
import sys
from pathlib import Path

from fa_hific_jax.errors import UserError


def cache_folder() -> Path:
    """Returns the folder of this package in the user's cache, which need not exist yet.

    It is `fa-hific` in $XDG_CACHE_HOME, else in the system's usual place: ~/.cache,
    ~/Library/Caches on macOS, %LOCALAPPDATA% on Windows. Raises a UserError without a home folder.
    """
    # The XDG specification says that relative paths are ignored.
    for name in ("XDG_CACHE_HOME", *(["LOCALAPPDATA"] if sys.platform == "win32" else [])):
        if os.path.isabs(folder := os.environ.get(name, "")):
            return Path(folder) / "fa-hific"
    try:
        home = Path.home()
    except RuntimeError as error:
        raise UserError("there is no home folder for downloads: set XDG_CACHE_HOME") from error
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "fa-hific"
