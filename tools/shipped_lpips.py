"""Makes the LPIPS weights that come with the package from files of `fa-hific get-lpips`.

  python -m tools.shipped_lpips lpips_alex.npz lpips_squeeze.npz

A kernel becomes 16-bit integers and one float32 step per output channel, which halves the file.
`fa_hific_jax.losses.lpips.load_lpips` reads it.
"""

import sys

import numpy as np

from fa_hific_jax.losses.lpips import SHIPPED_FOLDER, STEP, load_lpips


def packed(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays with each kernel of the network as integers, beside its steps."""
    found = {}
    for name, array in arrays.items():
        found[name] = array
        if name.startswith("features") and array.ndim == 4:
            step = np.abs(array).max((1, 2, 3), keepdims=True) / np.float32(32767)
            found |= {name: np.round(array / step).astype(np.int16), name + STEP: step}
    return found


if __name__ == "__main__":
    for path in sys.argv[1:]:
        net = load_lpips(path).net
        with np.load(path) as arrays:
            np.savez_compressed(SHIPPED_FOLDER / f"{net}.npz", **packed(dict(arrays)))
