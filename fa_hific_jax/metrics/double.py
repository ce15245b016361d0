"""Double precision on a device, for metrics whose digits are to be trusted."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

try:
    from jax import enable_x64
except ImportError:  # before jax 0.8
    from jax.experimental import enable_x64  # pyright: ignore[reportAttributeAccessIssue]


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Arrays made and functions compiled within are float64, on a device that computes with it.

    That is the default device, or the host where that is a TPU, which has no double precision.
    """
    with enable_x64(True), jax.default_device(_device()):
        yield


def _device() -> Any:
    if jax.default_backend() != "tpu":
        return None
    return jax.local_devices(backend="cpu")[0]
