"""Distances between sets against closed forms and SciPy; patches and features of images."""

import dataclasses

import numpy as np
import pytest
from scipy import linalg

from fa_hific_jax.metrics import (
    DESCRIPTIONS,
    Weights,
    features,
    frechet_distance,
    image_features,
    kid,
    load_weights,
    patches,
    set_metrics,
)


def normal(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def whitened(n: int, d: int, seed: int) -> np.ndarray:
    """A sample whose mean is 0 and whose covariance is the identity, exactly."""
    x = normal(n, d, seed)
    x -= x.mean(axis=0, keepdims=True)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T


def test_frechet_distance_of_gaussians_along_the_same_axes():
    # Of Gaussians with diagonal covariances: |m - n|^2 + sum (s - t)^2.
    rng = np.random.default_rng(0)
    s, t, m, n = rng.uniform(0.1, 3, (4, 12))
    a, b = whitened(300, 12, 1) * s + m, whitened(77, 12, 2) * t + n
    expected = np.sum((m - n) ** 2) + np.sum((s - t) ** 2)
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-12)


def of_seeds() -> list[np.ndarray]:
    """Two sets whose distances torch-fidelity 0.4.0 has computed."""
    drawn = ((1, 0.3, 1), (2, 0.4, 1.1))
    return [np.random.default_rng(i).normal(m, s, (50, 20)) for i, m, s in drawn]


def test_frechet_distance_agrees_with_the_root_of_the_product_and_torch_fidelity():
    a, b = normal(200, 20, 1) @ normal(20, 20, 2), 0.3 + normal(150, 20, 3) @ normal(20, 20, 4)
    # The usual way, through SciPy's root of the product of the covariances.
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(sum(covariances) - 2 * root)
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-10)
    np.testing.assert_allclose(frechet_distance(*of_seeds()), 6.062483250139273, rtol=1e-12)


def test_frechet_distance_is_sound_with_fewer_samples_than_features():
    # Ranks 9 and 6 in 40 dimensions: seen in a basis of the span of both, nothing is singular.
    a, b = 5 + normal(10, 40, 1), normal(7, 40, 2)
    basis = np.linalg.qr(np.concatenate([a, b]).T)[0]
    covariances = [np.cov(x @ basis, rowvar=False) + 1e-9 * np.eye(17) for x in (a, b)]
    root = linalg.sqrtm(covariances[0])
    shared = np.sum(np.sqrt(np.abs(linalg.eigvalsh(root @ covariances[1] @ root))))
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(sum(covariances)) - 2 * shared
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-4)


@pytest.mark.parametrize("n", [10, 100])
def test_frechet_distance_is_zero_only_between_equal_sets_and_symmetric(n):
    a, b, rotation = normal(n, 30, 1), normal(n, 30, 2), np.linalg.qr(normal(30, 30, 3))[0]
    assert frechet_distance(a, np.random.default_rng(0).permutation(a)) < 1e-12
    assert frechet_distance(a, b) > 1
    others = [frechet_distance(b, a), frechet_distance(a @ rotation, b @ rotation)]
    np.testing.assert_allclose(others, frechet_distance(a, b), rtol=1e-12)
    np.testing.assert_allclose(frechet_distance(a, a + 0.5), 30 * 0.25, rtol=1e-12)


def test_kid_is_the_sum_over_pairs_and_that_of_torch_fidelity():
    a, b = normal(6, 3, 1), normal(5, 3, 2)

    def kernel(x, y):
        return (x @ y / 3 + 1) ** 3

    within = [
        np.mean([kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j])
        for x in (a, b)
    ]
    across = np.mean([kernel(x, y) for x in a for y in b])
    np.testing.assert_allclose(kid(a, b), sum(within) - 2 * across, rtol=1e-12)
    # torch-fidelity 0.4.0, one subset of all samples.
    np.testing.assert_allclose(kid(*of_seeds()), 0.16251215383376527, rtol=1e-12)
    # More than a block: between point masses all pairs within a set, and all across, are the same.
    a, b = np.full((2100, 2), 1.0), np.full((2050, 2), -1.0)
    np.testing.assert_allclose(kid(a, b), 8 + 8 - 0, rtol=1e-12)


def test_patches_are_those_of_two_grids():
    image = np.random.default_rng(0).integers(0, 256, (700, 512, 3)).astype(np.uint8)
    corners = [(0, 0), (0, 256), (256, 0), (256, 256), (128, 128), (384, 128)]
    expected = [image[y : y + 256, x : x + 256] for y, x in corners]
    np.testing.assert_array_equal(patches(image), expected)
    # 8 of a Kodak image: 2 x 3, and 1 x 2 of the shifted grid.
    counts = {(512, 768): 8, (256, 256): 1, (383, 384): 1, (384, 384): 2, (255, 900): 0}
    for shape, count in counts.items():
        assert len(patches(np.zeros((*shape, 3), np.uint8))) == count


@pytest.fixture(scope="module")
def weights() -> Weights:
    return load_weights(["alex"])


def noise(count: int, amplitude: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(-amplitude, amplitude + 1, (count, 384, 384, 3))
    return (128 + drawn).astype(np.uint8)


def test_features_do_not_depend_on_the_rest_of_the_batch(weights):
    params = weights.lpips["alex"]
    cut = np.concatenate([patches(image) for image in noise(2, 90, 1)])
    found = features(params, cut)
    assert found.shape == (4, 256) and found.dtype == np.float32
    np.testing.assert_allclose(features(params, cut[3:]), found[3:], rtol=1e-4, atol=1e-5)
    assert features(params, cut[:0]).shape == (0, 256)


def test_set_metrics_rise_with_the_distortion_and_name_their_protocol(weights):
    originals, *others = (
        [image_features(weights, image) for image in noise(2, amplitude, seed)]
        for amplitude, seed in ((20, 1), (30, 2), (80, 2))
    )
    values = []
    for decoded in (originals, *others):
        entries = {entry["metric"]: entry for entry in set_metrics(weights, originals, decoded)}
        assert list(entries) == ["fid", "kid", "fd_alex", "kid_alex"] == list(DESCRIPTIONS)[-4:]
        for name in ("fid", "kid"):
            assert entries[name]["value"] is None
            assert "get them with `fa-hific get-in" in entries[name]["not_measured"]
        protocol = entries["fd_alex"]["protocol"]
        assert (protocol["patch"], protocol["grids"], protocol["patches"]) == (256, 2, 4)
        assert len(protocol["weights"]) == 12 and "AlexNet" in protocol["features"]
        assert protocol["note"].startswith("4 patches for 256 features: ")
        values.append([entries[name]["value"] for name in ("fd_alex", "kid_alex")])
    params = weights.lpips["alex"]
    bias = {"features.0.bias": params.weights["features.0.bias"] + 1}
    changed = Weights({"alex": dataclasses.replace(params, weights=params.weights | bias)})
    other = set_metrics(changed, originals, originals)[2]["protocol"]["weights"]
    assert other != entries["fd_alex"]["protocol"]["weights"]
    frechet, kernel = zip(*values, strict=True)
    assert frechet[0] < 1e-9 and frechet[0] < frechet[1] < frechet[2] and kernel[1] < kernel[2]


@pytest.mark.parametrize(
    ("of_each", "reason"),
    [
        (np.zeros((0, 256), np.float32), "fewer than two patches of 256x256 pixels"),
        (np.full((4, 256), np.nan, np.float32), "the network's features are not finite"),
    ],
)
def test_what_has_no_distance_says_why(weights, of_each, reason):
    images = [{"alex": of_each}] * 2
    entry = set_metrics(weights, images, images)[2]
    assert (entry["value"], entry["not_measured"]) == (None, reason)
