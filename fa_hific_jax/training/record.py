"""The file run.json, which records each start of a run so that results can be traced to it."""

import contextlib
import datetime
import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
from etils import epath

from fa_hific_jax import __version__
from fa_hific_jax import settings as settings_lib
from fa_hific_jax.settings import Settings
from fa_hific_jax.writing import write

FILE = "run.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def note_start(workdir: epath.Path, settings: Settings, first_step: int) -> None:
    """Adds this start to `workdir/run.json`.

    {"starts": [...]}, oldest first, each with time (UTC), first_step, command, settings, versions,
    git (commit and whether files were changed, null outside a repository), devices and processes.
    """
    record = read(workdir)
    record["starts"].append(
        {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "first_step": first_step,
            "command": sys.argv,
            "versions": versions(),
            "git": git_state(),
            "devices": [jax.device_count(), jax.devices()[0].device_kind],
            "processes": jax.process_count(),
            "settings": settings_lib.to_mapping(settings),
        }
    )
    write(workdir / FILE, json.dumps(record, indent=1).encode())


def read(workdir: epath.Path) -> dict[str, Any]:
    """Returns the record of a run, without starts if none can be read."""
    with contextlib.suppress(OSError, ValueError):
        record = json.loads((workdir / FILE).read_text())
        if isinstance(record, dict) and "starts" in record:
            return record
    return {"starts": []}


def versions() -> dict[str, str]:
    """Returns versions of this package, of Python and of packages that affect the numbers."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"fa-hific-jax": __version__, "python": platform.python_version()} | found


def git_state() -> dict[str, Any] | None:
    """Returns commit and "changed" of the repository that holds this file, None if none does."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).resolve().parent), *arguments]
        return subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True, timeout=10)

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        # A package installed into an environment within a repository is not part of it.
        if git("ls-files", "."):
            changed = bool(git("status", "--porcelain", "--untracked-files=no"))
            return {"commit": git("rev-parse", "HEAD").strip(), "changed": changed}
    return None
