"""RGB to YCbCr 4:2:0 of 10 bits and back: BT.709's numbers, and what chroma of half size keeps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fa_hific_jax.evaluation.baselines import yuv

BYTES = st.integers(0, 255)


def samples(color: tuple[int, int, int]) -> list[int]:
    planes = np.frombuffer(yuv.from_rgb(np.full((2, 2, 3), color, np.uint8)), "<u2")
    assert len(planes) == 6 and len(set(planes[:4])) == 1
    return [int(planes[i]) for i in (0, 4, 5)]


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        ((0, 0, 0), [0, 512, 512]),
        ((255, 255, 255), [1023, 512, 512]),
        ((255, 0, 0), [217, 395, 1023]),  # 1023 * 0.2126; 512 - 1023 * 0.2126 / 1.8556; clipped
        ((0, 255, 0), [732, 118, 47]),
        ((0, 0, 255), [74, 1023, 465]),
    ],
)
def test_primaries_have_the_numbers_of_bt_709(color, expected):
    assert samples(color) == expected


@given(st.tuples(BYTES, BYTES, BYTES), st.integers(1, 5), st.integers(1, 5))
def test_plain_colors_come_back_within_one_step(color, height, width):
    image = np.full((height, width, 3), color, np.uint8)
    planes = yuv.from_rgb(image)
    assert len(planes) == yuv.size(height, width)
    back = yuv.to_rgb(planes, height, width)
    np.testing.assert_allclose(back.astype(int), image, atol=1)


@given(arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_gray_comes_back_as_it_was(plane):
    image = np.repeat(plane[..., None], 3, axis=2)
    np.testing.assert_array_equal(yuv.to_rgb(yuv.from_rgb(image), *plane.shape), image)


def test_linear_chroma_is_interpolated_without_error_away_from_the_border():
    ramp = np.arange(64, 64 + 2 * 24, 2, dtype=np.uint8)
    image = np.full((10, 24, 3), 128, np.uint8)
    image[..., 0] = ramp
    back = yuv.to_rgb(yuv.from_rgb(image), 10, 24)
    np.testing.assert_allclose(back[:, 1:-1].astype(int), image[:, 1:-1], atol=1)
