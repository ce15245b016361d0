"""What the commands that run a model set up: silence, a compile cache, an orderly end."""

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from fa_hific_jax.codec import shipped

MODEL_VARIABLE = "FA_HIFIC_MODEL"


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """Keeps other packages from chattering, and lets SIGTERM end the block like an error.

    Half-written files are tidied up on the way to an exit with 143.
    """
    # Read by the C++ of JAX when it is loaded.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("jax", "absl", "PIL"):
        logging.getLogger(name).setLevel(logging.ERROR)
    main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminate) if main_thread else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if main_thread:
            signal.signal(signal.SIGTERM, before)


def model_to_use(given: str | None) -> str:
    """The model of --model, else of the environment, else the one that comes with the package."""
    return given or os.environ.get(MODEL_VARIABLE) or shipped.DEFAULT


def use_compile_cache() -> None:
    """Lets JAX keep compiled programs in the user's cache folder, unless it was told another."""
    import jax

    told = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if told is not None:
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "fa-hific" / "jax"
    with contextlib.suppress(OSError):  # a home that cannot be written to: compile each time
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _terminate(number: int, frame: object) -> None:
    sys.exit(128 + number)
