"""Grain pipelines: endless training batches, and whole images for evaluation."""

import dataclasses
import math
from collections.abc import Iterator

import grain
import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.data.sources import Cached, open_source
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
    threads: int  # that make batches; 0 makes them on demand in the caller's
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


def train_batches(
    config: DataConfig, *, batch_size: int, seed: int, start_step: int = 0
) -> Iterator[UInt8[np.ndarray, "b crop crop 3"]]:
    """Endless training batches in [0, 255], beginning with batch number `start_step`.

    Batch k depends on the sources, the settings, `batch_size`, `seed` and k alone: neither on the
    number of threads nor on where the iteration began. Sources take turns in fixed proportions;
    each goes through all its images in a new order before any of them comes again. Raises UserError
    where a source is empty, and while iterating where an image cannot be read.
    """
    children = np.random.SeedSequence(seed).generate_state(len(config.train) + 1)
    crop_seed, *shuffle_seeds = (int(child) for child in children)
    datasets = [
        _images(spec, config.cache).shuffle(shuffle_seed).repeat()
        for spec, shuffle_seed in zip(config.train, shuffle_seeds, strict=True)
    ]
    crop = RandomCrop(config.crop, config.scale_min, config.scale_max)
    options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=config.prefetch)
    mixed = grain.MapDataset.mix(datasets, config.weights or None)
    batches = mixed.random_map(crop, seed=crop_seed).batch(batch_size, drop_remainder=True)
    return iter(batches.slice(slice(start_step, None)).to_iter_dataset(options))


def _images(spec: str, cache: bool) -> grain.MapDataset:
    source = open_source(spec)
    return grain.MapDataset.source(Cached(source) if cache else source)


def evaluation_images(spec: str) -> Iterator[tuple[str, UInt8[np.ndarray, "h w 3"]]]:
    """Name and whole image in [0, 255] of each image that `spec` names, decoded when asked for."""
    source = open_source(spec)
    return ((name, source[i]) for i, name in enumerate(source.names))
