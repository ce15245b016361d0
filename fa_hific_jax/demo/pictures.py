"""Spectra and maps of the bits as color images, without a plotting library."""

import numpy as np
from jaxtyping import Float
from PIL import Image as PilImage

from fa_hific_jax.demo.equal_size import Image
from fa_hific_jax.evaluation.bits import BitsMap
from fa_hific_jax.models import STRIDE
from fa_hific_jax.spectra import LUMA, log_spectrum

# Luma increases from dark to bright, so that the colors can be read in gray as well.
_RAMP = np.array(
    [(0, 0, 6), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)],
    np.float64,
)
_SIDE = 512  # largest side of a drawn spectrum, in pixels
_CLIPPED = 0.5  # percentage of the frequencies at either end that get the color of the end


def colored(values: Float[np.ndarray, "h w"], low: float, high: float) -> Image:
    """Returns values as colors, from black at `low` over violet and orange to yellow at `high`."""
    place = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * (len(_RAMP) - 1)
    channels = [np.interp(place, np.arange(len(_RAMP)), ramp) for ramp in _RAMP.T]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def spectra(images: list[Image]) -> tuple[list[Image], tuple[float, float]]:
    """Returns log spectra of images of one size, and the values in dB of black and of yellow.

    The colors of all spectra span the range of the first. Spectra are squares with frequency 0 in
    the middle, because both axes go from -0.5 to 0.5 cycles per pixel. Large ones are averaged down
    to 512 x 512 pixels.
    """
    found = [_square(log_spectrum(image)) for image in images]
    low, high = np.percentile(found[0], (_CLIPPED, 100 - _CLIPPED))
    return [colored(values, low, high) for values in found], (float(low), float(high))


def heat(bits: BitsMap, image: Image) -> tuple[Image, float]:
    """Returns a map of the bits over the gray image, and the bits per pixel that are yellow.

    The map shows the bits of y, plus the bits of z spread evenly over the positions of y that each
    position of z covers. The padding beside the image is cut off.
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
