"""What the metrics of pairs share: the check of a pair, double precision, and their results."""

import contextlib
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.errors import UserError
from fa_hific_jax.ops import enable_x64

Picture = UInt8[np.ndarray, "_ _ _"]
Pictures = UInt8[np.ndarray, "_ _ _ _"]
Column = list[float] | str
"""A metric of each pair of a batch, or the reason why pairs of this size have none."""


def check_pair(x: np.ndarray, x_hat: np.ndarray) -> None:
    """Raises a UserError unless both images, or batches of images, are uint8 of the same shape."""
    if x.shape != x_hat.shape:
        raise UserError(
            f"images of different shapes {x.shape} and {x_hat.shape} cannot be compared: crop or "
            "code them to one size"
        )
    for image in (x, x_hat):
        if image.dtype != np.uint8:
            raise UserError(f"metrics need 8-bit images, not {image.dtype}: round the values first")


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Lets the block use float64, on the default device or, if that is a TPU, on the host."""
    has_float64 = jax.default_backend() != "tpu"
    device = None if has_float64 else jax.local_devices(backend="cpu")[0]
    with enable_x64(True), jax.default_device(device):
        yield
