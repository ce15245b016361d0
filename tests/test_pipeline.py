"""Crops follow HiFiC's recipe, and batch k is the same however one comes to it."""

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fa_hific_jax.data.pipeline import ImageCounts, train_batches
from fa_hific_jax.data.transforms import RandomCrop
from fa_hific_jax.errors import UserError
from fa_hific_jax.settings import DataConfig

HIFIC = (0.75, 0.95)


def config(*train, **changes):
    fields = {"train": train, "crop": 16, "scale": HIFIC, "cache": True, "threads": 2}
    fields |= {"weights": (), "evaluation": "photographs:validation"}
    return DataConfig.read(fields | changes)


def take(n, data, *, batch_size=4, seed=0, **options):
    batches = train_batches(data, batch_size=batch_size, seed=seed, **options)
    return np.stack(list(itertools.islice(batches, n)))


@pytest.fixture
def flat_images(tmp_path):
    """A folder of n images of one color each: image i is all first + i."""

    def make(name, n, first=0):
        (tmp_path / name).mkdir()
        for i in range(n):
            image = Image.new("RGB", (20, 24), (first + i,) * 3)
            image.save(tmp_path / name / f"{i:03d}.png")
        return str(tmp_path / name)

    return make


def damage(folder, *numbers):
    for number in numbers:
        path = Path(folder) / f"{number:03d}.png"
        path.write_bytes(path.read_bytes()[:40])


class Drawn(np.random.Generator):
    """A generator that gives the numbers it was made with, and notes between which bounds."""

    def __init__(self, share, row, column, flip):
        super().__init__(np.random.PCG64(0))
        self._share, self._places, self._flip = share, [row, column], flip

    def uniform(self, low, high):
        self.bounds = (low, high)
        return low + self._share * (high - low)

    def integers(self, low, high):
        return min(max(low, self._places.pop(0)), high - 1)

    def random(self):
        return 0.49 if self._flip else 0.51


NUMBERS = st.integers(0, 80)


@settings(deadline=None, max_examples=150)
@given(NUMBERS, NUMBERS, st.floats(0.0, 1.0), NUMBERS, NUMBERS, st.booleans())
def test_crops_are_those_of_the_pytorch_version(height, width, share, row, column, flip):
    """`OpenImages.__getitem__` of its src/helpers/datasets.py, with the same numbers drawn."""
    height, width = height + 1, width + 1
    image = np.random.default_rng(row).integers(0, 256, (height, width, 3), np.uint8)
    rng = Drawn(share, row, column, flip)
    crop = RandomCrop(16, *HIFIC).random_map(image, rng)

    low = max(16 / min(height, width), 0.75)
    high = max(low, 0.95)
    assert rng.bounds == (low, high) and crop.dtype == np.uint8
    scale = low + share * (high - low)
    size = (math.ceil(scale * width - 1e-6), math.ceil(scale * height - 1e-6))
    scaled = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    top, left = min(row, size[1] - 16), min(column, size[0] - 16)
    expected = scaled[top : top + 16, left : left + 16]
    # Turning the crop is turning the image and cropping at the mirrored place.
    expected = (expected[:, ::-1] if flip else expected).astype(int)
    # Pillow may filter rows or columns first, which rounds in another place.
    np.testing.assert_allclose(crop.astype(int), expected, atol=2)
    assert np.mean(np.abs(crop - expected)) < 0.5


def test_an_image_as_large_as_the_crop_is_only_flipped():
    rng = np.random.default_rng(0)
    for size in (7, 16, 49, 255):
        image = rng.integers(0, 256, (size, size, 3), np.uint8)
        crops = [RandomCrop(size, *HIFIC).random_map(image, rng) for _ in range(16)]
        flipped = [np.array_equal(crop, image[:, ::-1]) for crop in crops]
        assert any(flipped) and not all(flipped)
        assert all(f or np.array_equal(crop, image) for f, crop in zip(flipped, crops, strict=True))


def test_a_resumed_run_sees_the_same_batches(flat_images):
    data = config(flat_images("a", 7), "dead_leaves:3", weights=(2, 1), crop=18)
    unbroken = take(9, data)
    for start in (1, 4, 8):
        np.testing.assert_array_equal(take(9 - start, data, start_step=start), unbroken[start:])


def test_threads_and_caching_do_not_alter_batches(flat_images):
    data = config(flat_images("a", 7), "dead_leaves:3")
    damage(data.train[0], 3)
    expected = take(8, data)
    for changes in ({"threads": 0}, {"threads": 1}, {"threads": 4}, {"cache": False}):
        np.testing.assert_array_equal(take(8, dataclasses.replace(data, **changes)), expected)


def test_equal_crops_do_not_come_twice_nor_with_another_seed():
    crops = np.concatenate([take(16, config("dead_leaves:1"), seed=seed) for seed in (0, 1)])
    assert len({crop.tobytes() for crop in crops.reshape(-1, 16, 16, 3)}) == 128


def test_each_image_comes_once_per_round_in_a_new_order(flat_images):
    order = take(10, config(flat_images("a", 10)))[..., 0, 0, 0].reshape(4, 10)
    for round_ in order:
        assert sorted(round_) == list(range(10))
    assert len({tuple(round_) for round_ in order}) == 4


@pytest.mark.parametrize("weights,shares", [((), (4, 4)), ((3.0, 1.0), (6, 2)), ((1, 7), (1, 7))])
def test_sources_are_mixed_in_proportion(flat_images, weights, shares):
    data = config(flat_images("a", 3), flat_images("b", 50, first=100), weights=weights)
    for batch in take(5, data, batch_size=8):
        from_b = np.count_nonzero(batch[:, 0, 0, 0] >= 100)
        assert (8 - from_b, from_b) == shares


def test_sources_of_equal_length_are_not_in_step(flat_images):
    data = config(flat_images("a", 20), flat_images("b", 20, first=100))
    levels = take(5, data, batch_size=8)[..., 0, 0, 0].reshape(-1)
    assert list(levels[levels < 100]) != list(levels[levels >= 100] - 100)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_rows_of_each_batch(flat_images, processes):
    data = config(flat_images("a", 7), flat_images("b", 5, first=100), weights=(3, 1))
    damage(data.train[0], 2)
    options = {"batch_size": 8, "start_step": 2}
    whole = take(6, data, **options)
    shares = [
        take(6, data, process_index=i, process_count=processes, **options) for i in range(processes)
    ]
    np.testing.assert_array_equal(np.concatenate(shares, axis=1), whole)


@pytest.mark.parametrize(
    "source,options,message",
    [
        ("/absent", {}, "absent: no images here"),
        ("dead_leaves:1", {"seed": -1}, "the seed is -1: it must not be negative"),
        (
            "dead_leaves:1",
            {"batch_size": 6, "process_index": 0, "process_count": 4},
            "train.batch_size is 6, which 4 processes cannot share",
        ),
    ],
)
def test_what_makes_no_batches_is_named_before_the_first(source, options, message):
    with pytest.raises(UserError, match=message):
        train_batches(config(source), **{"batch_size": 4, "seed": 0} | options)


@pytest.mark.parametrize("threads", [0, 2])
def test_damaged_images_are_replaced_and_nothing_else_changes(flat_images, threads):
    data = config(flat_images("a", 20), threads=threads)
    sound = take(15, data)
    folder = data.train[0]
    damage(folder, 3, 11)
    batches = train_batches(data, batch_size=4, seed=0)
    skipping = np.stack(list(itertools.islice(batches, 15)))
    damaged = np.isin(sound[..., 0, 0, 0], (3, 11))
    assert np.count_nonzero(damaged) == 6  # three rounds of 20
    np.testing.assert_array_equal(skipping[~damaged], sound[~damaged])
    # The next image of the round that is whole takes the place, at the round's end its first.
    rounds = sound[..., 0, 0, 0].reshape(3, 20)
    for order, seen in zip(rounds, skipping[..., 0, 0, 0].reshape(3, 20), strict=True):
        whole = [level for level in order if level not in (3, 11)]
        for place in np.flatnonzero(np.isin(order, (3, 11))):
            rest = [level for level in order[place:] if level in whole]
            assert seen[place] == (rest or whole)[0]
    assert batches.counts() == {"data/seen": 20, "data/smaller_than_crop": 0, "data/damaged": 2}
    news = [line.partition(": cannot be read as an image")[0] for line in sorted(batches.news())]
    assert news == [f"{folder}/003.png", f"{folder}/011.png"]
    assert batches.news() == []


def test_small_images_are_enlarged_and_counted_once(flat_images):
    # 20 x 24 pixels: smaller than the crop on one side counts.
    batches = train_batches(config(flat_images("a", 3), crop=22), batch_size=4, seed=0)
    for _ in range(4):
        assert next(batches).shape == (4, 22, 22, 3)
    assert batches.counts()["data/smaller_than_crop"] == 3


@pytest.mark.parametrize("threads", [0, 2])
def test_more_than_one_per_cent_damaged_ends_the_run_if_it_is_more_than_ten(flat_images, threads):
    data = config(flat_images("a", 40), threads=threads)
    damage(data.train[0], *range(10))
    take(20, data)
    damage(data.train[0], 10)
    with pytest.raises(UserError, match=r"11 of the \d\d training images seen so far are damaged"):
        take(20, data)


def test_one_per_cent_is_of_the_images_not_of_the_reads():
    counts = ImageCounts([5000], side=1)
    for index in range(1200):
        counts.add(0, index, (1, 1, 3))
        counts.add(0, 0, (1, 1, 3))
    for index in range(2000, 2012):  # 12 of 1212
        for _ in range(2):
            counts.add(0, index, damage=f"image {index}")
    with pytest.raises(UserError, match="13 of the 1213 .*more than 1%.* image 2012"):
        counts.add(0, 2012, damage="image 2012")
    assert len(counts.damaged) == 13


def test_a_source_without_a_whole_image_ends_the_run(flat_images):
    folder = flat_images("a", 3)
    damage(folder, 0, 1, 2)
    with pytest.raises(UserError, match=r"none of the 3 images .*: .*\.png: cannot be read"):
        take(1, config(folder))


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"train": ()}, "data.train is .*: name at least one source"),
        ({"weights": (1.0, 2.0)}, "data.weights is .*: give one share .* 1 sources of data.train"),
        ({"weights": (0.0,)}, r"data.weights is \(0.0,\): all must be positive"),
        ({"crop": 0}, "data.crop is 0: it must be at least 1"),
        ({"scale": (0.0, 1.0)}, r"data.scale is \(0.0, 1.0\): give two factors, 0 < smallest"),
        ({"scale": (0.75, float("inf"))}, "data.scale is .* a finite number"),
        ({"evaluation": ""}, "data.evaluation is '': name a source"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(UserError, match=f"^{message}"):
        config("dead_leaves:1", **changes)
