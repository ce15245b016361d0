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
# Patches per call: few enough for a laptop's memory, enough to keep an accelerator busy.
BATCH = {"inception": 16, "alex": 64}
NO_WEIGHTS = {
    "inception": "no Inception weights: get them with `fa-hific get-inception`",
    "alex": "not requested: add alex to --lpips",
}


class SetMetric(NamedTuple):
    """A distance between the features of a network, "inception" or "alex"."""

    network: str
    distance: Callable[[Any, Any], float]


SET_METRICS = {
    "fid": SetMetric("inception", frechet_distance),
    "kid": SetMetric("inception", kid),
    "fd_alex": SetMetric("alex", frechet_distance),
    "kid_alex": SetMetric("alex", kid),
}
_TITLES = {
    "inception": "FID's Inception v3 of 2015-12-05, last pooling, 2048",
    "alex": "torchvision's AlexNet, spatial mean of the last convolution after ReLU, 256",
}


def patches(image: UInt8[np.ndarray, "h w 3"]) -> Patches:
    """Returns the 256 x 256 patches of two grids, which start at (0, 0) and at (128, 128).

    HiFiC computes FID and KID over such patches (Mentzer et al., NeurIPS 2020, appendix A.7).
    Patches of one grid do not overlap, and pixels at the borders that fill no patch are not used.
    There are no patches if a side is below 256 pixels.
    """
    h, w, _ = image.shape
    corners = [
        (y, x)
        for start in (0, PATCH // 2)
        for y in range(start, h - PATCH + 1, PATCH)
        for x in range(start, w - PATCH + 1, PATCH)
    ]
    found = [image[y : y + PATCH, x : x + PATCH] for y, x in corners]
    return np.stack(found) if found else np.zeros((0, PATCH, PATCH, 3), np.uint8)


def features(params: InceptionParams | LpipsParams, patches: Patches) -> Float32[np.ndarray, "_ _"]:
    """Returns the features of each patch, (n, 2048) with Inception or (n, 256) with AlexNet.

    Inception's features are those of `inception`, for FID and KID. AlexNet's features, for FD-Alex
    and KID-Alex, are the spatial means of its last convolution after ReLU.
    """
    network, size = ("inception", 2048) if isinstance(params, InceptionParams) else ("alex", 256)
    found = [np.zeros((0, size), np.float32)]
    for start in range(0, len(patches), BATCH[network]):
        batch = patches[start : start + BATCH[network]]
        padded = np.pad(batch, ((0, _filling(len(batch))), (0, 0), (0, 0), (0, 0)))
        found.append(np.asarray(_NETWORKS[network](params, padded))[: len(batch)])
    return np.concatenate(found)


def _filling(count: int) -> int:
    """Returns the number of patches to add, so that few batch sizes have to be compiled."""
    return max(8, 1 << (count - 1).bit_length()) - count


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
    available = _available(weights)
    identities = {name: digest(params.weights) for name, params in available.items()}
    entries = []
    for name, (network, distance) in SET_METRICS.items():
        entry = {"metric": name, "value": None, "not_measured": NO_WEIGHTS[network], "protocol": {}}
        if network in available:
            sets = [
                np.concatenate([one[network] for one in images]) for images in (originals, decoded)
            ]
            entry["protocol"] = _protocol(SET_METRICS[name], identities[network], *sets)
            entry["value"], entry["not_measured"] = _measured(distance, *sets)
        entries.append(entry)
    return entries


def _measured(
    distance: Callable[[Any, Any], float],
    a: Float32[np.ndarray, "_ _"],
    b: Float32[np.ndarray, "_ _"],
) -> tuple[float | None, str | None]:
    if min(len(a), len(b)) < 2:
        return None, f"fewer than two patches of {PATCH}x{PATCH} pixels"
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None, "the network's features are not finite"
    return distance(a, b), None


def _protocol(metric: SetMetric, identity: str, a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    network, distance = metric
    protocol = {
        "patch": PATCH,
        "grids": 2,
        "patches": len(b),
        "features": _TITLES[network],
        "weights": identity,
    }
    if distance is frechet_distance and len(b) <= b.shape[1]:
        protocol["note"] = (
            f"{len(b)} patches for {b.shape[1]} features: strongly biased upwards, compare it only "
            "with results on the same images"
        )
    return protocol


def _available(weights: Weights) -> dict[str, InceptionParams | LpipsParams]:
    found: dict[str, Any] = {"inception": weights.inception, "alex": weights.lpips.get("alex")}
    return {name: params for name, params in found.items() if params is not None}


@jax.jit
def _alex(params: LpipsParams, x: UInt8[Array, "b h w 3"]) -> Float[Array, "b 256"]:
    taps = BACKBONES["alex"].features(params.weights, standardized(x.astype(jnp.float32) / 255.0))
    return jnp.mean(taps[-1], axis=(1, 2))


_NETWORKS = {"inception": jax.jit(inception), "alex": _alex}
