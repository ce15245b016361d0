"""Spectra and heat maps as pictures, colored without a plotting library."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image as PilImage

from fa_hific_jax.evaluation.bits import BitsMap
from fa_hific_jax.models.autoencoder import STRIDE
from fa_hific_jax.spectra import LUMA, log_spectrum

Image = UInt8[np.ndarray, "_ _ 3"]

# From dark to bright, of growing luma, so that it reads in gray as well.
_RAMP = np.array(
    [(0, 0, 6), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)],
    np.float64,
)
_SIDE = 512  # of a drawn spectrum, at most
_CLIPPED = 0.5  # per cent of the frequencies at either end that the colors do not tell apart


def colored(values: Float[np.ndarray, "h w"], low: float, high: float) -> Image:
    """A picture of values: black at `low` and below, over violet and orange to yellow at `high`."""
    place = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * (len(_RAMP) - 1)
    channels = [np.interp(place, np.arange(len(_RAMP)), ramp) for ramp in _RAMP.T]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def spectra(images: list[Image]) -> tuple[list[Image], tuple[float, float]]:
    """(log spectra of images of one size, frequency 0 in the middle; dB at black and at yellow).

    All have the colors of the first, whose range they span, and are squares, as both axes go from
    -0.5 to 0.5 cycles per pixel; large ones are averaged down to 512 cells a side.
    """
    found = [_square(log_spectrum(image)) for image in images]
    low, high = np.percentile(found[0], (_CLIPPED, 100 - _CLIPPED))
    return [colored(values, low, high) for values in found], (float(low), float(high))


def heat(bits: BitsMap, image: Image) -> tuple[Image, float]:
    """(the image in gray under what each place costs, the bits per pixel at yellow).

    The bits of y, and those of z spread evenly over the positions of y that it covers; those
    of the padding beside the image are cut off.

    Args:
      bits: of the image's file.
      image: of which the file is, or its decoded form.
    """
    repeat = bits.y.shape[0] // bits.z.shape[0]
    spread = np.kron(bits.z, np.full((repeat, repeat), 1 / repeat**2, np.float32))
    side = STRIDE // repeat
    density = (bits.y + spread) / side**2
    height, width, _ = image.shape
    cells = colored(density, 0.0, float(density.max()))
    large = cells.repeat(side, axis=0).repeat(side, axis=1)[:height, :width]
    gray = (image @ LUMA)[..., None]
    return np.rint(0.7 * large + 0.3 * gray).astype(np.uint8), float(density.max())


def _square(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "n n"]:
    side = min(_SIDE, max(values.shape))
    picture = PilImage.fromarray(values.astype(np.float32))
    return np.asarray(picture.resize((side, side), PilImage.Resampling.BOX), np.float64)
