"""Metrics between sets of images over the patches of HiFiC: FID, KID and their AlexNet versions.

The distances of two sets of features are computed in float64.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, UInt8

from fa_hific_jax.losses.lpips import BACKBONES, LpipsParams, standardized
from fa_hific_jax.metrics.inception import InceptionParams, inception
from fa_hific_jax.metrics.weights import Weights, digest

Features = Float[np.ndarray, "_ _"]
Patches = UInt8[np.ndarray, "_ 256 256 3"]
ByNetwork = Mapping[str, Float32[np.ndarray, "_ _"]]

PATCH = 256
_BLOCK = 2048


def frechet_distance(a: Features, b: Features) -> float:
    """Returns the squared Fréchet distance of Gaussians fitted to two sets (n, d), n >= 2.

    It is |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) with the unbiased covariances A and B.
    With features of Inception this is the FID of Heusel et al., "GANs trained by a two time-scale
    update rule", NeurIPS 2017.

    With A = F^T F and B = G^T G the last trace is the sum of the singular values of F G^T. F and G
    come from QR decompositions of the centered features. No root of a singular matrix is taken: the
    error stays near 1e-15 of the traces, even for n < d.
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
    "Demystifying MMD GANs", ICLR 2018. Every pair is used once, instead of random subsets, so the
    result does not change from run to run. An unbiased estimate can be negative.
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


@jax.jit
def _alex(params: LpipsParams, x: UInt8[Array, "b h w 3"]) -> Float[Array, "b 256"]:
    taps = BACKBONES["alex"].features(params.weights, standardized(x.astype(jnp.float32) / 255.0))
    return jnp.mean(taps[-1], axis=(1, 2))


class _Network(NamedTuple):
    run: Callable[..., Float[Array, "b size"]]
    size: int  # number of features
    batch: int  # patches per call: few enough for a laptop's memory, enough for an accelerator
    title: str
    missing: str  # reason why there are no weights


_NETWORKS = {
    "inception": _Network(
        jax.jit(inception), 2048, 16, "FID's Inception v3 of 2015-12-05, last pooling, 2048",
        "no Inception weights: get them with `fa-hific get-inception`",
    ),
    "alex": _Network(
        _alex, 256, 64,
        "torchvision's AlexNet, spatial mean of the last convolution after ReLU, 256",
        "not requested: add alex to --lpips",
    ),
}  # fmt: skip
_METRICS = {
    "fid": ("inception", frechet_distance),
    "kid": ("inception", kid),
    "fd_alex": ("alex", frechet_distance),
    "kid_alex": ("alex", kid),
}


def patches(image: UInt8[np.ndarray, "h w 3"]) -> Patches:
    """Returns the 256 x 256 patches of two grids, which start at (0, 0) and at (128, 128).

    HiFiC computes FID and KID over such patches (Mentzer et al., NeurIPS 2020, appendix A.7).
    Patches of one grid do not overlap, and pixels at the borders that fill no patch are not used.
    """
    h, w, _ = image.shape
    found = [
        image[y : y + PATCH, x : x + PATCH]
        for start in (0, PATCH // 2)
        for y in range(start, h - PATCH + 1, PATCH)
        for x in range(start, w - PATCH + 1, PATCH)
    ]
    return np.array(found, np.uint8).reshape(-1, PATCH, PATCH, 3)


def features(params: InceptionParams | LpipsParams, patches: Patches) -> Float32[np.ndarray, "_ _"]:
    """Returns the features of each patch: (n, 2048) of Inception or (n, 256) of AlexNet."""
    network = _NETWORKS["inception" if isinstance(params, InceptionParams) else "alex"]
    found = [np.zeros((0, network.size), np.float32)]
    for start in range(0, len(patches), network.batch):
        batch = patches[start : start + network.batch]
        padded = max(8, 1 << (len(batch) - 1).bit_length())  # Few batch sizes are compiled.
        filled = np.pad(batch, ((0, padded - len(batch)), (0, 0), (0, 0), (0, 0)))
        found.append(np.asarray(network.run(params, filled))[: len(batch)])
    return np.concatenate(found)


def image_features(weights: Weights, image: UInt8[np.ndarray, "h w 3"]) -> ByNetwork:
    """Returns the features of an image's patches by "inception" and "alex", if `weights` has them.

    Collect the results of all images for `set_metrics`.
    """
    cut, networks = patches(image), weights.networks()
    return {name: features(networks[name], cut) for name in _NETWORKS if name in networks}


def set_metrics(
    weights: Weights, originals: Sequence[ByNetwork], decoded: Sequence[ByNetwork]
) -> list[dict[str, Any]]:
    """Returns every set metric with its protocol, or the reason why it is not measured.

    Each entry has "metric", "value", "not_measured" and "protocol". The protocol says how patches
    were cut, how many there are, which features were compared and with which weights. `originals`
    and `decoded` hold the result of `image_features` for each image, with the same weights.
    """
    found, networks = [], weights.networks()
    digests = {name: digest(params.weights) for name, params in networks.items()}
    for name, (network, distance) in _METRICS.items():
        entry = {"metric": name, "value": None, "not_measured": _NETWORKS[network].missing}
        protocol: dict[str, Any] = {}
        if network in networks:
            a, b = (np.concatenate([each[network] for each in of]) for of in (originals, decoded))
            protocol |= {"patch": PATCH, "grids": 2, "patches": len(b)}
            protocol["features"] = _NETWORKS[network].title
            protocol["weights"] = digests[network]
            if distance is frechet_distance and len(b) <= b.shape[1]:
                protocol["note"] = (
                    f"{len(b)} patches for {b.shape[1]} features: strongly biased upwards, compare "
                    "it only with results on the same images"
                )
            if min(len(a), len(b)) < 2:
                entry["not_measured"] = f"fewer than two patches of {PATCH}x{PATCH} pixels"
            elif not (np.isfinite(a).all() and np.isfinite(b).all()):
                entry["not_measured"] = "the network's features are not finite"
            else:
                entry |= {"value": distance(a, b), "not_measured": None}
        found.append(entry | {"protocol": protocol})
    return found
