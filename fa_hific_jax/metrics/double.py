"""Double precision on the device, for metrics that need more digits than float32 has."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

from fa_hific_jax.ops import enable_x64


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Lets arrays and functions that are made within the context use float64.

    They are placed on the default device, or on the host if that is a TPU, which has no float64.
    """
    with enable_x64(True), jax.default_device(_device()):
        yield


def _device() -> Any:
    if jax.default_backend() != "tpu":
        return None
    return jax.local_devices(backend="cpu")[0]
