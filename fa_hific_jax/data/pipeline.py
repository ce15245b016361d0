"""Makes endless training batches from sources of images, with Grain."""

import dataclasses
import functools
import math
import sys
import threading
from collections.abc import Iterator, Sequence

import grain
import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fa_hific_jax.data.sources import Cached, Source, open_source
from fa_hific_jax.errors import UserError
from fa_hific_jax.settings.data import DataConfig

# A run ends if more images than this, and more than this share of those seen, are damaged.
TOLERATED = 10
TOLERATED_SHARE = 0.01
_FILTER = Image.Resampling.BILINEAR  # Pillow antialiases it when it downsamples.


@dataclasses.dataclass(frozen=True)
class RandomCrop(grain.transforms.RandomMap):
    """HiFiC's preprocessing: random scale, random square crop, random horizontal flip.

    The scale is s ~ U(a, max(a, scale_max)) with a = max(crop / short side, scale_min), as in
    `models/hific/model.py` of tensorflow/compression and `src/helpers/datasets.py` of PyTorch
    HiFiC. Scaled sides are rounded up. Scaling is bilinear, and antialiased as in PyTorch HiFiC.
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


class Batches(Iterator[np.ndarray]):
    """Endless training batches, UInt8[b crop crop 3] in [0, 255], and counts of their images.

    The counts are those of this process, and each image of each source counts once, however often
    it is read. They run ahead of the batches, which are prefetched; threads may share them.

    Attributes:
      batches: the iterator that makes the batches.
    """

    def __init__(self, lengths: Sequence[int], side: int):
        self.batches: Iterator[np.ndarray] = iter(())
        self._side, self._lock = side, threading.Lock()
        self._counted = [bytearray(length) for length in lengths]
        self._seen = self._small = self._reported = 0
        self._damaged: list[str] = []  # sentences, in order of discovery

    def __next__(self) -> UInt8[np.ndarray, "b crop crop 3"]:
        return next(self.batches)

    def counts(self) -> dict[str, float]:
        """Returns data/seen, data/smaller_than_crop and data/damaged; each image counts once."""
        values = {"seen": self._seen, "smaller_than_crop": self._small}
        values["damaged"] = len(self._damaged)
        return {f"data/{name}": float(value) for name, value in values.items()}

    def news(self) -> list[str]:
        """Returns a sentence for each image found damaged since the last call."""
        sentences = self._damaged[self._reported :]
        self._reported += len(sentences)
        return sentences

    def add(self, source: int, index: int, shape: tuple[int, ...] = (), damage: str = "") -> None:
        """Counts image `index` of source number `source`: its (height, width, ...) or its damage.

        Raises UserError if too many are damaged.
        """
        with self._lock:
            if self._counted[source][index]:
                return
            self._counted[source][index] = True
            self._seen += 1
            if not damage:
                self._small += min(shape[:2]) < self._side
                return
            self._damaged.append(damage)
            damaged, seen = len(self._damaged), self._seen
        if damaged > max(TOLERATED, TOLERATED_SHARE * seen):
            raise UserError(
                f"{damaged} of the {seen} training images seen so far are damaged, more than "
                f"{TOLERATED_SHARE:.0%}: repair or remove them; the last one is {damage}"
            )


def train_batches(
    config: DataConfig,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    sources: Sequence[Source] | None = None,
    process: tuple[int, int] | None = None,
) -> Batches:
    """Returns this process' rows of the endless training batches.

    Batch k depends only on the sources, the settings, `batch_size`, `seed` and k, so a checkpoint
    need not hold any state of the data. Sources take turns in fixed proportions. Each source yields
    all its images in a new random order before any of them is repeated. The next readable image of
    that order replaces a damaged one, and all others keep their places.

    Args:
      config: sources, their weights, crop, scale and threads.
      batch_size: number of images in the global batch, which the processes share evenly.
      seed: seed of the order and the crops, not negative.
      start_step: number of the first batch; earlier ones are skipped at no cost.
      sources: the sources of `config.train`, if they are already open.
      process: (i, n) to make the rows [i b / n, (i + 1) b / n) of each global batch of b images;
        by default the number of JAX's process and how many there are.

    Raises:
      UserError: the seed is negative, there are no images, or the processes cannot share a batch.
        While iterating: a source has no readable image, or too many are damaged.
    """
    if seed < 0:
        raise UserError(f"the seed is {seed}: it must not be negative")
    index, processes = process or (jax.process_index(), jax.process_count())
    if batch_size % processes:
        raise UserError(
            f"train.batch_size is {batch_size}, which {processes} processes cannot share evenly: "
            f"choose a multiple of {processes}"
        )
    sources = [open_source(spec) for spec in config.train] if sources is None else sources
    result = Batches([len(source) for source in sources], config.crop)
    children = np.random.SeedSequence(seed).generate_state(len(sources) + 1)
    crop_seed, *shuffle_seeds = (int(child) for child in children)
    images = [
        _endless(Cached(source) if config.cache else source, shuffle_seed, result, number)
        for number, (source, shuffle_seed) in enumerate(zip(sources, shuffle_seeds, strict=True))
    ]
    crop = RandomCrop(config.crop, *config.scale)
    crops = grain.MapDataset.mix(images, config.weights or None).random_map(crop, seed=crop_seed)
    # Global batch k of n processes consists of the shares k n to k n + n - 1.
    shares = crops.batch(batch_size // processes, drop_remainder=True)
    own = shares.slice(slice(start_step * processes + index, None, processes))
    # Old versions of Grain accept 0 threads only with an empty prefetch buffer.
    ahead = max(8, 4 * config.threads) if config.threads else 0
    options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=ahead)
    result.batches = iter(own.to_iter_dataset(options))
    return result


def _endless(source: Source, seed: int, batches: Batches, number: int) -> grain.MapDataset:
    """Repeats all images in a new random order each time; replaces and counts damaged ones.

    Grain's own shuffle takes up to milliseconds per image for a source of a few photographs.
    """
    count = len(source)

    @functools.lru_cache(maxsize=4)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, epoch]).permutation(count)

    def image(position: int) -> np.ndarray:
        epoch, place = divmod(position, count)
        sentence = ""
        for step in range(count):
            index = int(order(epoch)[(place + step) % count])
            try:
                found = source[index]
            except UserError as error:
                sentence = str(error)
                batches.add(number, index, damage=sentence)
                continue
            batches.add(number, index, found.shape)
            return found
        raise UserError(f"none of the {count} images of a source can be read: {sentence}")

    return grain.MapDataset.range(sys.maxsize).map(image)
