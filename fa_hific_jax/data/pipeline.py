"""Grain pipeline: sources of images to endless training batches."""

import functools
import sys
from collections.abc import Iterator, Sequence

import grain
import jax
import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.data.sources import Cached, Source, open_source
from fa_hific_jax.data.tally import Tally
from fa_hific_jax.data.transforms import RandomCrop
from fa_hific_jax.errors import UserError
from fa_hific_jax.settings.data import DataConfig


def open_sources(config: DataConfig) -> list[Source]:
    """The sources that `config.train` names.

    Raises UserError, before anything slow begins, where one of them has no images.
    """
    return [open_source(spec) for spec in config.train]


class Batches(Iterator[np.ndarray]):
    """Endless training batches, UInt8[b crop crop 3] in [0, 255], and what they came across.

    Counts run ahead of the batches by those that are prefetched, and are this process' own.
    """

    def __init__(self, batches: Iterator[np.ndarray], tally: Tally):
        self._batches, self._tally, self._told = batches, tally, 0

    def __next__(self) -> UInt8[np.ndarray, "b crop crop 3"]:
        return next(self._batches)

    def counts(self) -> dict[str, float]:
        """Metrics data/seen, data/smaller_than_crop and data/damaged: each image counts once."""
        return self._tally.counts()

    def news(self) -> list[str]:
        """A sentence for each image found damaged since the last call."""
        sentences = self._tally.damaged(self._told)
        self._told += len(sentences)
        return sentences


def train_batches(
    config: DataConfig,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    sources: Sequence[Source] | None = None,
    process_index: int | None = None,
    process_count: int | None = None,
) -> Batches:
    """This process' rows of the endless training batches, from batch number `start_step` on.

    Batch k depends on the sources, the settings, `batch_size`, `seed` and k alone, neither on
    threads nor on processes nor on where the iteration began; so k is all the state there is to
    save. Sources take turns in fixed proportions; each goes through all its images in a new order
    before any of them comes again. Where an image is damaged, the next one of that order that is
    not takes its place, and nothing else changes.

    Args:
      config: what to make batches of.
      batch_size: of the global batch, which `process_count` must divide.
      seed: not negative.
      start_step: number of the first batch, at no cost.
      sources: those of `config.train` where they are open already.
      process_index, process_count: make rows [i b / n, (i + 1) b / n) of each global batch of b;
        without, those of JAX.

    Raises:
      UserError: a negative seed, no images, a batch that the processes cannot share; while
        iterating, where a source has no whole image or too many are damaged (see `tally`).
    """
    if seed < 0:
        raise UserError(f"the seed must not be negative, not {seed}")
    index = jax.process_index() if process_index is None else process_index
    processes = jax.process_count() if process_count is None else process_count
    if batch_size % processes:
        raise UserError(
            f"train.batch_size is {batch_size}, which {processes} processes cannot share evenly: "
            f"choose a multiple of {processes}"
        )
    sources = open_sources(config) if sources is None else sources
    tally = Tally([len(source) for source in sources], config.crop)
    children = np.random.SeedSequence(seed).generate_state(len(sources) + 1)
    crop_seed, *shuffle_seeds = (int(child) for child in children)
    images = [
        _endless(Cached(source) if config.cache else source, shuffle_seed, tally, number)
        for number, (source, shuffle_seed) in enumerate(zip(sources, shuffle_seeds, strict=True))
    ]
    crop = RandomCrop(config.crop, *config.scale)
    crops = grain.MapDataset.mix(images, config.weights or None).random_map(crop, seed=crop_seed)
    # Global batch k of n processes is what would be batches k n to k n + n - 1 of a single one.
    shares = crops.batch(batch_size // processes, drop_remainder=True)
    own = shares.slice(slice(start_step * processes + index, None, processes))
    ahead = (
        max(8, 4 * config.threads) if config.threads else 0
    )  # old Grain takes no threads only so
    options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=ahead)
    return Batches(iter(own.to_iter_dataset(options)), tally)


def _endless(source: Source, seed: int, tally: Tally, number: int) -> grain.MapDataset:
    """The images over and over, each time all of them in a new order, damaged ones replaced.

    What is read is told to `tally` as of source `number`. Not Grain's own shuffle: its time per
    image grows as a source shrinks, to milliseconds for a handful of photographs.
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
                tally.broken(number, index, sentence)
                continue
            tally.whole(number, index, found.shape)
            return found
        raise UserError(f"not one of the {count} images of a source can be read, as {sentence}")

    return grain.MapDataset.range(sys.maxsize).map(image)
