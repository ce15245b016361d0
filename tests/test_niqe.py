"""NIQE against reference numbers, and what it must do with noise, blur, flat and small images."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fa_hific_jax.metrics import Weights, measure, niqe


def kodak(data_folder, number: int) -> np.ndarray:
    return np.asarray(Image.open(data_folder / "kodak" / f"kodim{number:02d}.png").convert("RGB"))


@pytest.mark.parametrize(
    ("number", "expected"),
    [(5, 2.856308691481094), (13, 2.1058403462341695), (23, 4.250385376212593)],
)
def test_niqe_agrees_with_a_port_of_the_authors_software(data_folder, number, expected):
    # Reference numbers: BasicSR 1.4.2 in float64, on grey levels as MATLAB's rgb2gray gives them.
    # In flat places the sign of rounding errors counts, so that its own float32 differs by 0.002.
    np.testing.assert_allclose(niqe(kodak(data_folder, number)), expected, rtol=0, atol=3e-3)


def test_noise_and_blur_are_told_from_a_photograph(data_folder):
    x = kodak(data_folder, 5)[:384, :384]
    noisy = np.clip(x + np.random.default_rng(0).normal(0, 25, x.shape), 0, 255).astype(np.uint8)
    blurred = np.asarray(Image.fromarray(x).filter(ImageFilter.GaussianBlur(2)))
    assert niqe(x) < min(niqe(noisy), niqe(blurred)) - 1


def test_only_whole_blocks_count():
    x = np.random.default_rng(0).integers(0, 256, (230, 200, 3), dtype=np.uint8)
    # The window reaches three pixels beyond the blocks, so the crop comes first.
    assert niqe(x) == niqe(x[:192, :192])
    assert niqe(x) != niqe(x[1:])


def test_flat_blocks_are_left_out_and_flat_images_are_not_measured():
    x = np.full((192, 288, 3), 100, np.uint8)
    assert niqe(x) is None
    x[:, :96] = np.random.default_rng(0).integers(0, 256, (192, 96, 3))
    assert np.isfinite(niqe(x))


def test_small_images_are_not_measured():
    x = np.random.default_rng(0).integers(0, 256, (96, 191, 3), dtype=np.uint8)
    values, not_measured = measure(x, x, Weights())
    assert values["niqe"] is None
    assert not_measured["niqe"] == "fewer than two blocks of 96x96 pixels that are not flat"
