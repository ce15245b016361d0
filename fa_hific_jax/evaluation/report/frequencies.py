"""Spectra and maps of bits on the page: small arrays, packed for its script."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from fa_hific_jax.models import STRIDE
from fa_hific_jax.spectra import decibels, log_spectrum, radial_power_spectrum

SPECTRUM_SIDE = 95  # bins per side of a drawn spectrum, odd: the middle one holds frequency zero
HEAT_SIDE = 96  # cells per side of a drawn heat map
BANDS = 64  # radial bands of a drawn radial spectrum


def pack(values: Float[np.ndarray, "h w"], low: float, step: float) -> dict[str, Any]:
    """Returns {"shape", "low", "step", "data"}: bytes with value = low + step * byte, clipped."""
    codes = np.clip(np.rint((values - low) / step), 0, 255).astype(np.uint8)
    data = base64.b64encode(codes.tobytes()).decode()
    return {"shape": list(values.shape), "low": low, "step": step, "data": data}


def spectrum(image: UInt8[np.ndarray, "h w 3"]) -> dict[str, Any]:
    """Returns the log spectrum in steps of 0.5 dB: its upper rows, down to the middle one.

    The rows below are the rows above turned by half a circle, as luma is real. The spectrum is
    averaged to an odd number of bins per side, at most SPECTRUM_SIDE.
    """
    values = log_spectrum(image)
    height, width = (min(SPECTRUM_SIDE, side - 1 + side % 2) for side in values.shape)
    values = shrink(values, height, width)
    return pack(values[: len(values) // 2 + 1], -30.0, 0.5)


def radial(image: UInt8[np.ndarray, "h w 3"]) -> dict[str, list[float]]:
    """Returns cycles per pixel and dB of the radial power spectrum, rounded for the page."""
    frequency, power = radial_power_spectrum(image, BANDS)
    return {"x": np.round(frequency, 4).tolist(), "y": np.round(decibels(power), 2).tolist()}


def heat_maps(path: Path, width: int, height: int) -> dict[str, Any]:
    """Returns maps of the bits of an image: {"y": …, "z": …}, in bits per pixel.

    The .npz has "y" (hy, wy) and "z" (hz, wz), bits at each position of the latents; each position
    of z covers STRIDE x STRIDE pixels of the padded image. Each map is packed, with "size" (width
    and height of a cell in pixels) and "bpp", the rate of the whole latent, padding included.

    Raises:
      OSError, ValueError, KeyError: the file is missing or is not such a file.
    """
    with np.load(path, allow_pickle=False) as arrays:
        bits = {name: np.asarray(arrays[name], np.float64) for name in ("y", "z")}
    if any(b.ndim != 2 or not b.size or not np.isfinite(b).all() for b in bits.values()):
        raise ValueError("y and z must be maps of finite numbers")
    padded = np.array(bits["z"].shape[::-1]) * STRIDE
    return {name: _heat_map(b, padded, width * height) for name, b in bits.items()}


def _heat_map(bits: Float[np.ndarray, "h w"], padded: np.ndarray, pixels: int) -> dict[str, Any]:
    density = bits * (bits.size / float(np.prod(padded)))
    small = shrink(density, *(min(side, HEAT_SIDE) for side in bits.shape))
    packed = pack(small, 0.0, max(float(small.max()), 1e-9) / 255)
    size = (padded / small.shape[::-1]).tolist()
    return packed | {"size": size, "bpp": round(float(bits.sum()) / pixels, 5)}


def shrink(
    values: Float[np.ndarray, "h w"], height: int, width: int
) -> Float[np.ndarray, "height width"]:
    """Returns the values averaged over areas."""
    small = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, np.float64)
