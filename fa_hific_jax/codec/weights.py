"""Data types in which a model stores its weights: what they round, and how arrays are stored.

`int8` stores each kernel of a convolution as integers from -127 to 127 and one step per output
channel, which is the largest magnitude of the channel / 127, rounded up to 11 bits. So integer
times step is exact in float32, and rounding twice changes nothing. All other parameters, which are
few, are float16.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32

from fa_hific_jax.errors import UserError

KINDS = ("float32", "float16", "int8")

_LARGEST = 127
_STEP_BITS = 11
_STEP = "/step"  # follows the name of a kernel

Weights = Mapping[str, np.ndarray]


def rounded(leaf: np.ndarray, kind: str) -> Float32[np.ndarray, "..."]:
    """Returns a parameter rounded to what `kind`, one of KINDS, can store.

    Raises a UserError if there is no such kind, or the parameter is not finite or too large for it.
    """
    if kind not in KINDS:
        raise UserError(f"there are no weights of {kind!r}: choose one of {', '.join(KINDS)}")
    with np.errstate(over="ignore", invalid="ignore"):
        arrays = stored({"": np.asarray(leaf, np.float32)}, kind)
        result = restored(arrays)[""].astype(np.float32, copy=False)
    if not np.isfinite(result).all():
        raise UserError(
            f"a weight is not finite, or too large for {kind}: take float32 or another checkpoint"
        )
    return result


def stored(weights: Weights, kind: str) -> dict[str, np.ndarray]:
    """Returns the arrays that stand for rounded parameters in a file."""
    arrays = {}
    for name, leaf in weights.items():
        if kind == "int8" and leaf.ndim == 4:
            arrays[name], arrays[name + _STEP] = _quantized(np.asarray(leaf, np.float32))
        elif leaf.dtype == np.int32:
            arrays[name] = leaf
        else:
            arrays[name] = leaf.astype("float32" if kind == "float32" else "float16", copy=False)
    return arrays


def restored(arrays: Weights) -> dict[str, np.ndarray]:
    """Inverts `stored`, for arrays of unknown origin; float arrays keep their data type.

    Raises a KeyError if an integer kernel has no step that fits.
    """
    weights = {}
    for name, array in arrays.items():
        if array.dtype == np.int8:
            step = arrays.get(name + _STEP)
            if step is None or step.dtype != np.float32 or step.shape != array.shape[-1:]:
                raise KeyError(name + _STEP)
            weights[name] = array * step
        elif not name.endswith(_STEP):
            weights[name] = array
    return weights


def _quantized(kernel: Float32[np.ndarray, "k k i o"]) -> tuple[np.ndarray, np.ndarray]:
    """Returns integers and steps, whose product is the rounded kernel, NaN for one not finite."""
    largest = np.abs(kernel).max(axis=(0, 1, 2))
    if not np.isfinite(largest).all():
        return np.zeros(kernel.shape, np.int8), largest
    mantissa, exponent = np.frexp(largest / np.float32(_LARGEST))
    step = np.ldexp(np.ceil(np.ldexp(mantissa, _STEP_BITS)), exponent - _STEP_BITS)
    step = step.astype(np.float32)
    return np.rint(kernel / np.where(step > 0, step, np.float32(1))).astype(np.int8), step
