"""Weight files of frozen networks: an .npz of named arrays, checked before use."""

import io
import os
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float

from fa_hific_jax.errors import UserError

Arrays = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]


def read_npz(path: str | os.PathLike[str], command: str, page: str) -> dict[str, np.ndarray]:
    """Returns all arrays of an .npz file at a local or cloud path.

    A file that is missing or not readable raises a UserError, which names the command that makes
    it and the page of the documentation.
    """
    found = epath.Path(path)
    if not found.is_file():
        raise UserError(f"{path}: no such file: make it with `{command}` ({page})")
    try:
        with np.load(io.BytesIO(found.read_bytes()), allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in arrays.files}
    # zipfile, zlib and NumPy's header parser raise errors of many types. An .npy file raises a
    # TypeError, because an array is not a context manager.
    except Exception as error:
        raise UserError(
            f"{path}: not a readable .npz file, perhaps truncated: make it again with "
            f"`{command}` ({page})"
        ) from error


def mistakes(arrays: Arrays, shapes: Shapes) -> str:
    """Returns up to three reasons why `arrays` do not have these shapes; "" if they do."""
    wrong = [mistake for name in shapes if (mistake := _mistake(arrays, name, shapes[name]))]
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return ", ".join(wrong[:3]) + more


def parameters(arrays: Arrays) -> dict[str, Float[Array, "..."]]:
    """Returns the arrays in float32, with kernels transposed from OIHW to HWIO."""

    def ours(array):
        # NumPy transposes because JAX would compile a program for each shape.
        array = np.asarray(array, np.float32)
        return jnp.asarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array)

    return {name: ours(array) for name, array in arrays.items()}


def _mistake(arrays: Arrays, name: str, shape: tuple[int, ...]) -> str:
    if name not in arrays:
        return f"{name} is missing"
    if arrays[name].shape != shape:
        return f"{name} has shape {arrays[name].shape} instead of {shape}"
    if arrays[name].dtype.kind != "f":
        return f"{name} is of type {arrays[name].dtype} instead of float32"
    return "" if np.all(np.isfinite(arrays[name])) else f"{name} has values that are not finite"
