"""Turns an image into a training crop."""

import dataclasses
import math

import grain
import numpy as np
from jaxtyping import UInt8
from PIL import Image

_FILTER = Image.Resampling.BILINEAR  # Pillow antialiases it when it downsamples.


@dataclasses.dataclass(frozen=True)
class RandomCrop(grain.transforms.RandomMap):
    """HiFiC's preprocessing: random scale, random square crop, random horizontal flip.

    The scale is s ~ U(a, max(a, scale_max)) with a = max(crop / short side, scale_min). So images
    with a side below the crop are upsampled, and others are mostly downsampled, which hides
    artifacts of their own compression. Scaled sides are rounded up. Both
    `models/hific/model.py` of tensorflow/compression and `src/helpers/datasets.py` of PyTorch
    HiFiC do this, with 0.75 and 0.95. Scaling is bilinear and antialiased as in PyTorch HiFiC;
    tensorflow/compression does not antialias.
    """

    crop: int
    scale_min: float
    scale_max: float

    def random_map(
        self, element: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "crop crop 3"]:
        """Returns a random crop of `element` in [0, 255]."""
        height, width, _ = element.shape
        low = max(self.crop / min(height, width), self.scale_min)
        scale = rng.uniform(low, max(low, self.scale_max))
        rows = self._interval(height, scale, rng)
        columns = self._interval(width, scale, rng)
        crop = resize_box(element, rows, columns, self.crop)
        return np.ascontiguousarray(crop[:, ::-1]) if rng.random() < 0.5 else crop

    def _interval(self, side: int, scale: float, rng: np.random.Generator) -> tuple[float, float]:
        """Draws a crop's start and end along one side, in pixels of the unscaled image."""
        # For scale = crop / side, rounding may put the product just above the crop.
        scaled = max(self.crop, math.ceil(scale * side - 1e-6))
        start = int(rng.integers(0, scaled - self.crop + 1))
        step = side / scaled
        return start * step, min((start + self.crop) * step, float(side))


def resize_box(
    image: UInt8[np.ndarray, "h w 3"],
    rows: tuple[float, float],
    columns: tuple[float, float],
    size: int,
) -> UInt8[np.ndarray, "size size 3"]:
    """Scales the part of `image` between fractional `rows` and `columns` to size x size.

    The result equals a crop of the whole scaled image up to rounding, at a lower cost: the filter
    also reads the pixels around the part.
    """
    top, bottom = _with_margin(rows, size, image.shape[0])
    left, right = _with_margin(columns, size, image.shape[1])
    box = (columns[0] - left, rows[0] - top, columns[1] - left, rows[1] - top)
    part = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    return np.array(part.resize((size, size), _FILTER, box=box))


def _with_margin(interval: tuple[float, float], size: int, side: int) -> tuple[int, int]:
    start, stop = interval
    margin = max(1.0, (stop - start) / size) + 1.0  # the filter's radius and one more pixel
    return max(0, math.floor(start - margin)), min(side, math.ceil(stop + margin))
