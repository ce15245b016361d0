"""Procedural images: functions of seed and number, with the statistics of photographs."""

import numpy as np
import pytest

from fa_hific_jax.data import dead_leaves
from fa_hific_jax.data.dead_leaves import DeadLeaves


@pytest.fixture(scope="module")
def images():
    return [DeadLeaves(12)[i] for i in range(12)]


def spectral_slope(images):
    """Slope of log power against log frequency, 4 to 100 cycles per image, of the mean spectrum."""
    side = images[0].shape[0]
    window = np.hanning(side)[:, None] * np.hanning(side)[None, :]
    gray = np.stack(images).astype(np.float64).mean(axis=-1)
    gray -= gray.mean(axis=(1, 2), keepdims=True)
    power = np.mean(np.abs(np.fft.fft2(gray * window)) ** 2, axis=0)
    axis = np.fft.fftfreq(side) * side
    radius = np.rint(np.hypot(axis[:, None], axis[None, :])).astype(int)
    radial = np.bincount(radius.ravel(), power.ravel()) / np.bincount(radius.ravel())
    cycles = np.arange(4, 101)
    return np.polyfit(np.log(cycles), np.log(radial[cycles]), 1)[0]


def test_spectrum_falls_like_that_of_photographs(images):
    # Measured -2.3 to -2.7 over sets of 6 to 24; scikit-image's photographs give -1.6 to -3.2 here.
    assert -2.8 < spectral_slope(images) < -1.8


def test_channels_are_correlated_and_colors_muted(images):
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.float64)
    correlation = np.corrcoef(pixels.T)
    assert correlation[np.triu_indices(3, 1)].min() > 0.7
    assert np.mean(pixels.max(axis=1) - pixels.min(axis=1)) < 64  # saturated colors give 255
    assert 30 < pixels.std() < 90
    assert np.mean((pixels == 0) | (pixels == 255)) < 0.01


def test_an_image_depends_on_seed_and_number_alone(images):
    assert len({image.tobytes() for image in images}) == len(images)
    np.testing.assert_array_equal(DeadLeaves(1000)[5], images[5])
    assert not np.array_equal(DeadLeaves(1000, seed=1)[5], images[5])


@pytest.mark.parametrize("size", [1, 7, 33, 100])
def test_any_size_can_be_drawn_and_numbers_count_from_either_end_and_stop(size):
    source = DeadLeaves(3, size=size)
    assert source[1].shape == (size, size, 3) and source[1].dtype == np.uint8
    np.testing.assert_array_equal(source[-1], source[2])
    assert len(source) == len(source.names) == len(list(source)) == 3


@pytest.mark.parametrize("seed", range(4))
def test_fast_painting_agrees_with_painting_one_by_one(seed):
    side = 96
    leaves = dead_leaves._draw_leaves(np.random.default_rng(seed), side)
    grid = np.arange(side, dtype=np.float32)
    labels = np.zeros((side, side), np.int32)
    for i in range(len(leaves.box)):
        leaf = dead_leaves._Leaves(*(field[i] for field in leaves))
        inside = dead_leaves._inside(
            leaf, grid[None, :] - leaf.center[0], grid[:, None] - leaf.center[1]
        )
        labels[inside] = i + 1
    painted = dead_leaves._paint(leaves, side)
    # The two subtract in another order, so a point on an outline may fall to either side.
    assert np.count_nonzero(painted != labels) <= 3
    assert np.mean(labels == 0) < 0.4
