"""DISTS against a second implementation in NumPy, float64, with random weights of thin layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from fa_hific_jax.metrics.dists import channel_weights, dists

# VGG16 with an eighth of the channels: layer of torchvision, inputs, outputs; "P" for a pooling.
LAYERS = (0, 3, 8), (2, 8, 8), "P", (5, 8, 16), (7, 16, 16), "P", (10, 16, 32), (12, 32, 32)
LAYERS += (14, 32, 32), "P", (17, 32, 64), (19, 64, 64), (21, 64, 64), "P"
LAYERS += (24, 64, 64), (26, 64, 64), (28, 64, 64)
CHANNELS = 3 + 8 + 16 + 32 + 64 + 64


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found = {}
    for layer in LAYERS:
        if layer != "P":
            name, inputs, outputs = layer
            scale = np.float32(np.sqrt(2 / (9 * inputs)))
            kernel = rng.standard_normal((3, 3, inputs, outputs), np.float32)
            found[f"features.{name}.weight"] = scale * kernel
            found[f"features.{name}.bias"] = rng.uniform(-0.1, 0.1, outputs).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def shares() -> tuple[np.ndarray, np.ndarray]:
    texture, structure = np.random.default_rng(1).random((2, CHANNELS))
    total = np.sum(texture + structure)
    return (texture / total).astype(np.float32), (structure / total).astype(np.float32)


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Odd sides, so that poolings meet the border on both sides."""
    rng = np.random.default_rng(2)
    x = rng.random((2, 33, 46, 3), np.float32)
    return x, np.clip(x + 0.2 * rng.standard_normal(x.shape, np.float32), 0, 1)


def windows(x):
    x = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    return sliding_window_view(x, (3, 3), (0, 1))  # rows, columns, channels, 3, 3


def expected_maps(weights, image):
    h = (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    hann = np.hanning(5)[1:-1]
    kernel = np.outer(hann, hann) / np.sum(np.outer(hann, hann))
    found = [image]
    for layer in LAYERS:
        if layer == "P":
            found.append(h)
            h = np.sqrt(np.einsum("hwcij,ij->hwc", windows(h**2)[::2, ::2], kernel) + 1e-12)
        else:
            k, bias = (
                weights[f"features.{layer[0]}.{i}"].astype(float) for i in ("weight", "bias")
            )
            h = np.maximum(np.einsum("hwcij,ijco->hwo", windows(h), k) + bias, 0)
    return [*found, h]


def expected_distance(weights, shares, x, x_hat):
    terms = []
    for a, b in zip(*(expected_maps(weights, i.astype(float)) for i in (x, x_hat)), strict=True):
        a, b = (maps.reshape(-1, maps.shape[-1]) for maps in (a, b))
        mean, mean_hat = a.mean(axis=0), b.mean(axis=0)
        covariance = (a * b).mean(axis=0) - mean * mean_hat
        s1 = (2 * mean * mean_hat + 1e-6) / (mean**2 + mean_hat**2 + 1e-6)
        s2 = (2 * covariance + 1e-6) / (a.var(axis=0) + b.var(axis=0) + 1e-6)
        terms.append((s1, s2))
    s1, s2 = (np.concatenate(each) for each in zip(*terms, strict=True))
    return 1 - np.sum(shares[0] * s1) - np.sum(shares[1] * s2)


def test_distances_agree_with_an_independent_implementation(weights, shares, pair):
    # With random VGG16 weights of full width it agrees with the authors' code within 5e-8.
    found = jax.jit(dists)(weights, *shares, *map(jnp.asarray, pair))
    expected = [expected_distance(weights, shares, *each) for each in zip(*pair, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert min(expected) > 0.01


def test_equal_images_have_no_distance_and_textures_may_move(weights, shares, pair):
    x = jnp.asarray(pair[0])
    of = jax.jit(dists)
    np.testing.assert_allclose(of(weights, *shares, x, x), 0, atol=1e-6)
    np.testing.assert_allclose(
        of(weights, *shares, x, jnp.asarray(pair[1])),
        of(weights, *shares, jnp.asarray(pair[1]), x),
        rtol=1e-5,
    )
    x_moved = jnp.roll(x, 8, axis=1)
    only_texture = (shares[0] / shares[0].sum(), np.zeros_like(shares[1]))
    texture, both = (of(weights, *each, x, x_moved) for each in (only_texture, shares))
    assert np.all(4 * texture < both)


def test_the_authors_channels_have_weights_that_sum_to_one():
    texture, structure = channel_weights()
    assert texture.shape == structure.shape == (3 + 64 + 128 + 256 + 512 + 512,)
    assert texture.sum() + structure.sum() == pytest.approx(1, abs=1e-6)
    assert texture.min() > 0 and structure.min() >= 0
    # Of weights.pt: alpha sums to 0.8760 and beta to 0.1240.
    assert texture.sum() == pytest.approx(0.8760496 / (0.8760496 + 0.1239502), rel=1e-5)
