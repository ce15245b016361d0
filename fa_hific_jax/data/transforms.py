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
        """Returns a random crop of `element` in [0, 255].

        It equals a crop of the whole scaled image up to rounding, at a lower cost.
        """
        low = max(self.crop / min(element.shape[:2]), self.scale_min)
        scale = rng.uniform(low, max(low, self.scale_max))
        parts, starts, stops = [], [], []
        for side in element.shape[:2]:
            # For scale = crop / side, rounding may put the product just above the crop.
            scaled = max(self.crop, math.ceil(scale * side - 1e-6))
            place = int(rng.integers(0, scaled - self.crop + 1))
            step = side / scaled
            start, stop = place * step, min((place + self.crop) * step, float(side))
            margin = max(1.0, (stop - start) / self.crop) + 1.0  # the filter's radius and one more
            first = max(0, math.floor(start - margin))
            parts.append(slice(first, min(side, math.ceil(stop + margin))))
            starts.insert(0, start - first)
            stops.insert(0, stop - first)
        part = Image.fromarray(np.ascontiguousarray(element[tuple(parts)]))
        crop = np.array(part.resize((self.crop, self.crop), _FILTER, box=(*starts, *stops)))
        return np.ascontiguousarray(crop[:, ::-1]) if rng.random() < 0.5 else crop
