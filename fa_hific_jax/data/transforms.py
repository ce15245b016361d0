"""From an image to a training crop."""

import dataclasses
import math

import grain
import numpy as np
from jaxtyping import UInt8
from PIL import Image

_FILTER = Image.Resampling.BILINEAR  # antialiased where it shrinks
_SUPPORT = 1  # pixels of the smaller scale that it sees to either side


@dataclasses.dataclass(frozen=True)
class RandomCrop(grain.transforms.RandomMap):
    """HiFiC's preprocessing: random scale, random square crop, random flip from left to right.

    The scale is s ~ U(a, max(a, scale_max)) with a = max(crop / short side, scale_min), so that
    images shorter than the crop are enlarged and others are mostly made smaller, which hides the
    traces of their own compression; sides are rounded up (`models/hific/model.py` of
    tensorflow/compression and `src/helpers/datasets.py` of PyTorch HiFiC, with 0.75 and 0.95).
    Scaling is bilinear and antialiased, as the latter's; the former does not antialias.
    """

    crop: int
    scale_min: float
    scale_max: float

    def random_map(
        self, element: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "crop crop 3"]:
        """One crop of `element`, in [0, 255], drawn with `rng`."""
        height, width, _ = element.shape
        low = max(self.crop / min(height, width), self.scale_min)
        scale = rng.uniform(low, max(low, self.scale_max))
        rows = self._interval(height, scale, rng)
        columns = self._interval(width, scale, rng)
        crop = resize_box(element, rows, columns, self.crop)
        return np.ascontiguousarray(crop[:, ::-1]) if rng.random() < 0.5 else crop

    def _interval(self, side: int, scale: float, rng: np.random.Generator) -> tuple[float, float]:
        """Where a crop from a side scaled to ceil(scale * side) starts and ends before scaling."""
        # Where scale = crop / side, the product may come out just above the crop.
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
    """The part of `image` between fractional `rows` and `columns`, scaled to size x size.

    As if the whole image were scaled and then cropped, but for rounding and without the cost: the
    filter sees the pixels around the part as well.
    """
    top, bottom = _with_margin(rows, size, image.shape[0])
    left, right = _with_margin(columns, size, image.shape[1])
    box = (columns[0] - left, rows[0] - top, columns[1] - left, rows[1] - top)
    part = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    return np.array(part.resize((size, size), _FILTER, box=box))


def _with_margin(interval: tuple[float, float], size: int, side: int) -> tuple[int, int]:
    start, stop = interval
    margin = _SUPPORT * max(1.0, (stop - start) / size) + 1.0
    return max(0, math.floor(start - margin)), min(side, math.ceil(stop + margin))
