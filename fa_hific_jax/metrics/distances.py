"""Fréchet and kernel distances between two sets of features, computed in float64."""

import numpy as np
from jaxtyping import Float, Float64

Features = Float[np.ndarray, "_ _"]

_BLOCK = 2048


def frechet_distance(a: Features, b: Features) -> float:
    """Returns the squared Fréchet distance of Gaussians fitted to two sets (n, d), n >= 2.

    It is |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) with the unbiased covariances A and B.
    With features of Inception this is the FID of Heusel et al., "GANs trained by a two time-scale
    update rule", NeurIPS 2017.

    With A = F^T F and B = G^T G the last trace is the sum of the singular values of F G^T. F and G
    come from QR decompositions of the centered features. No covariance is formed, and no root of a
    singular matrix is taken. The error therefore stays near 1e-15 of the traces, even for n < d,
    where implementations that use `sqrtm` add a constant to the diagonals.
    """
    a, b = (np.asarray(features, np.float64) for features in (a, b))
    shift = np.sum(np.square(a.mean(axis=0) - b.mean(axis=0)))
    factor_a, factor_b = _factor(a), _factor(b)
    spread = np.sum(np.square(factor_a)) + np.sum(np.square(factor_b))
    shared = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()
    return float(max(shift + spread - 2 * shared, 0.0))


def kid(a: Features, b: Features) -> float:
    """Returns the unbiased squared maximum mean discrepancy of two sets (n, d), n >= 2.

    The kernel is (x . y / d + 1)^3. With features of Inception this is the KID of Bińkowski et al.,
    "Demystifying MMD GANs", ICLR 2018. Every pair is used once, instead of random subsets: the
    expectation is the same, and the result does not change from run to run. An unbiased estimate
    can be negative.
    """
    a, b = (np.asarray(features, np.float64) for features in (a, b))
    return _within(a) + _within(b) - 2 * _kernel_sum(a, b) / (len(a) * len(b))


def _factor(features: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "_ d"]:
    """Returns a matrix F with at most d rows such that F^T F is the unbiased covariance."""
    centered = features - features.mean(axis=0, keepdims=True)
    if len(centered) > centered.shape[1]:
        centered = np.linalg.qr(centered, mode="r")
    return centered / np.sqrt(len(features) - 1)


def _within(a: Float64[np.ndarray, "n d"]) -> float:
    """Returns the kernel's mean over pairs of different members of a set."""
    itself = np.sum((np.sum(np.square(a), axis=1) / a.shape[1] + 1) ** 3)
    return (_kernel_sum(a, a) - float(itself)) / (len(a) * (len(a) - 1))


def _kernel_sum(a: Float64[np.ndarray, "n d"], b: Float64[np.ndarray, "m d"]) -> float:
    """Returns the kernel's sum over all pairs, with memory that does not grow with the sets."""
    blocks = [[s[i : i + _BLOCK] for i in range(0, len(s), _BLOCK)] for s in (a, b)]
    return float(sum(np.sum((p @ q.T / a.shape[1] + 1) ** 3) for p in blocks[0] for q in blocks[1]))
