"""Metrics between sets of images over the patches of HiFiC: FID, KID and their AlexNet versions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from fa_hific_jax.losses.lpips import LpipsParams, standardized
from fa_hific_jax.losses.lpips_backbones import BACKBONES
from fa_hific_jax.metrics.distances import frechet_distance, kid
from fa_hific_jax.metrics.inception import InceptionParams, inception
from fa_hific_jax.metrics.weights import Weights, digest

Patches = UInt8[np.ndarray, "_ 256 256 3"]
ByNetwork = Mapping[str, Float32[np.ndarray, "_ _"]]

PATCH = 256


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
    There are no patches if a side is below 256 pixels.
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
    """Returns the features of each patch, (n, 2048) with Inception or (n, 256) with AlexNet.

    Inception's features are those of `inception`, for FID and KID. AlexNet's features, for FD-Alex
    and KID-Alex, are the spatial means of its last convolution after ReLU.
    """
    network = _NETWORKS["inception" if isinstance(params, InceptionParams) else "alex"]
    found = [np.zeros((0, network.size), np.float32)]
    for start in range(0, len(patches), network.batch):
        batch = patches[start : start + network.batch]
        padded = max(8, 1 << (len(batch) - 1).bit_length())  # Few batch sizes are compiled.
        filled = np.pad(batch, ((0, padded - len(batch)), (0, 0), (0, 0), (0, 0)))
        found.append(np.asarray(network.run(params, filled))[: len(batch)])
    return np.concatenate(found)


def image_features(weights: Weights, image: UInt8[np.ndarray, "h w 3"]) -> ByNetwork:
    """Returns the features of an image's patches, by the name of the network.

    The networks are "inception" and "alex", as far as `weights` has them. Collect the results of
    all images for `set_metrics`.
    """
    cut = patches(image)
    return {name: features(params, cut) for name, params in _available(weights).items()}


def set_metrics(
    weights: Weights, originals: Sequence[ByNetwork], decoded: Sequence[ByNetwork]
) -> list[dict[str, Any]]:
    """Returns every set metric with its protocol, or the reason why it is not measured.

    Each entry has "metric", "value", "not_measured" and "protocol". The protocol says how patches
    were cut, how many there are, which features were compared and with which weights.

    Args:
      weights: the weights that the features were computed with.
      originals: the result of `image_features` for each original.
      decoded: the result of `image_features` for each decoded image.
    """
    available, entries = _available(weights), []
    identities = {name: digest(params.weights) for name, params in available.items()}
    for name, (network, distance) in _METRICS.items():
        value, protocol, reason = None, {}, _NETWORKS[network].missing
        if network in available:
            a, b = (np.concatenate([each[network] for each in of]) for of in (originals, decoded))
            protocol = _protocol(network, distance, identities[network], b)
            if min(len(a), len(b)) < 2:
                reason = f"fewer than two patches of {PATCH}x{PATCH} pixels"
            elif not (np.isfinite(a).all() and np.isfinite(b).all()):
                reason = "the network's features are not finite"
            else:
                value, reason = distance(a, b), None
        entries.append(
            {"metric": name, "value": value, "not_measured": reason, "protocol": protocol}
        )
    return entries


def _protocol(
    network: str, distance: Callable[..., float], identity: str, decoded: np.ndarray
) -> dict[str, Any]:
    count, size = decoded.shape
    protocol = {"patch": PATCH, "grids": 2, "patches": count}
    protocol |= {"features": _NETWORKS[network].title, "weights": identity}
    if distance is frechet_distance and count <= size:
        protocol["note"] = (
            f"{count} patches for {size} features: strongly biased upwards, compare it only with "
            "results on the same images"
        )
    return protocol


def _available(weights: Weights) -> dict[str, InceptionParams | LpipsParams]:
    found: dict[str, Any] = {"inception": weights.inception, "alex": weights.lpips.get("alex")}
    return {name: params for name, params in found.items() if params is not None}
