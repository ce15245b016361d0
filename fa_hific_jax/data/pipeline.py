"""Grain pipeline: sources of images to endless training batches."""

import dataclasses
import functools
import math
import sys
from collections.abc import Iterator

import grain
import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.data.sources import Cached, Source, open_source
from fa_hific_jax.data.transforms import RandomCrop
from fa_hific_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What to train and evaluate on; specs are those of `sources.open_source`.

    Raises UserError, naming the field, for values that cannot be.
    """

    train: tuple[str, ...]  # specs of the training images
    weights: tuple[float | int, ...]  # share of each spec in a batch; empty for equal shares
    crop: int  # side of a training crop, pixels
    scale_min: float  # bounds of the random scale before cropping, see RandomCrop
    scale_max: float
    cache: bool  # keep decoded training images in memory
    threads: int  # that make batches; 0 leaves it to the caller's, without prefetch
    prefetch: int  # batches made ahead
    evaluation: str  # spec of the images to evaluate on

    def __post_init__(self):
        _require(len(self.train) > 0, "train", "must name at least one source of images")
        _require(
            len(self.weights) in (0, len(self.train)),
            "weights",
            f"must be empty or hold one share for each of the {len(self.train)} sources",
        )
        positive = all(math.isfinite(weight) and weight > 0 for weight in self.weights)
        _require(positive, "weights", f"must all be positive, not {self.weights}")
        _require(self.crop >= 1, "crop", f"must be at least 1, not {self.crop}")
        ordered = 0 < self.scale_min <= self.scale_max < math.inf
        bounds = f"must satisfy 0 < scale_min <= scale_max, not {self.scale_min}, {self.scale_max}"
        _require(ordered, "scale_min", bounds)
        _require(self.threads >= 0, "threads", f"must not be negative, not {self.threads}")
        _require(self.prefetch >= 0, "prefetch", f"must not be negative, not {self.prefetch}")
        _require(bool(self.evaluation), "evaluation", "must name a source of images")


def _require(condition: bool, field: str, sentence: str) -> None:
    if not condition:
        raise UserError(f"data.{field} {sentence}")


def check_sources(config: DataConfig) -> None:
    """Raises a UserError, before anything slow begins, where `config.train` names no images."""
    for spec in config.train:
        open_source(spec)


def train_batches(
    config: DataConfig, *, batch_size: int, seed: int, start_step: int = 0
) -> Iterator[UInt8[np.ndarray, "b crop crop 3"]]:
    """Endless training batches in [0, 255], beginning with batch number `start_step`.

    Batch k depends on the sources, the settings, `batch_size`, `seed` and k alone: neither on the
    number of threads nor on where the iteration began. Sources take turns in fixed proportions;
    each goes through all its images in a new order before any of them comes again. Raises
    UserError for a negative seed, where there are no images, and while iterating where an image
    cannot be read.
    """
    if seed < 0:
        raise UserError(f"the seed must not be negative, not {seed}")
    children = np.random.SeedSequence(seed).generate_state(len(config.train) + 1)
    crop_seed, *shuffle_seeds = (int(child) for child in children)
    datasets = [
        _endless(open_source(spec), config.cache, shuffle_seed)
        for spec, shuffle_seed in zip(config.train, shuffle_seeds, strict=True)
    ]
    crop = RandomCrop(config.crop, config.scale_min, config.scale_max)
    ahead = config.prefetch if config.threads else 0  # old Grain takes no threads only so
    options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=ahead)
    mixed = grain.MapDataset.mix(datasets, config.weights or None)
    batches = mixed.random_map(crop, seed=crop_seed).batch(batch_size, drop_remainder=True)
    return iter(batches.slice(slice(start_step, None)).to_iter_dataset(options))


def _endless(source: Source, cache: bool, seed: int) -> grain.MapDataset:
    """The images over and over, each time all of them in a new order.

    Not Grain's own shuffle: its time per image grows as a source shrinks, to milliseconds for a
    handful of photographs.
    """
    source = Cached(source) if cache else source

    @functools.lru_cache(maxsize=4)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, epoch]).permutation(len(source))

    def image(position: int) -> np.ndarray:
        epoch, place = divmod(position, len(source))
        return source[int(order(epoch)[place])]

    return grain.MapDataset.range(sys.maxsize).map(image)
