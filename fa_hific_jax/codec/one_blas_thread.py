"""Keeps NumPy's matrix products within the thread that asks for them.

OpenBLAS, which NumPy's wheels contain, divides each product among threads that wait for each other
in busy loops. While other programs use the cores, a product then takes several times as long as in
one thread.
"""

import contextlib
import ctypes
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

# Prefix and suffix of OpenBLAS' functions in the wheels of NumPy, in its older wheels, and in
# builds of Linux distributions.
_AFFIXES = (("scipy_", "64_"), ("", "64_"), ("", ""))

_lock = threading.Lock()


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limits OpenBLAS to one thread within the block, which one thread at a time can enter.

    The limit holds for the whole process. With another BLAS, it has no effect.
    """
    get, limit = _functions()
    with _lock:
        before = get()
        limit(1)
        try:
            yield
        finally:
            limit(before)


@functools.cache
def _functions() -> tuple[Callable[[], int], Callable[[int], Any]]:
    """Returns OpenBLAS' functions that get and set the number of threads, or substitutes."""
    with contextlib.suppress(AttributeError, OSError):
        # The names of a library include those of the libraries that it was linked with.
        library = ctypes.CDLL(np.linalg._umath_linalg.__file__)
        for prefix, suffix in _AFFIXES:
            names = [f"{prefix}openblas_{verb}_num_threads{suffix}" for verb in ("get", "set")]
            if all(hasattr(library, name) for name in names):
                get, limit = (getattr(library, name) for name in names)
                return get, limit
    return (lambda: 1), (lambda _: None)
