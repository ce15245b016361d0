"""Double precision on a device, for metrics whose digits are to be trusted."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Arrays made and functions compiled within are float64, on a device that computes with it.

    That is the default device, or the host where that is a TPU, which has no double precision.
    """
    # The one name is gone in newer JAX, the other not yet there in older.
    enable = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    with enable(True), jax.default_device(_device()):
        yield


def _device() -> jax.Device | None:
    if jax.default_backend() != "tpu":
        return None
    return jax.local_devices(backend="cpu")[0]
