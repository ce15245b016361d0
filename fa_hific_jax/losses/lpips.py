"""LPIPS v0.1: a perceptual distance in the features of a frozen network."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.lpips_backbones import BACKBONES, Features, Weights
from fa_hific_jax.losses.weight_files import mistakes, parameters, read_npz
from fa_hific_jax.ops import Image

# Networks whose weights come with the package: AlexNet and SqueezeNet 1.1. Their kernels are stored
# with 16 bits. Distances above 0.05 differ from those with the published float32 weights by a
# relative error below 1e-4.
SHIPPED = ("alex", "squeeze")
SHIPPED_FOLDER = Path(__file__).parents[1] / "shipped" / "lpips"
STEP = ".step"  # suffix of the array that holds the step of a kernel stored as integers
# The mean and the standard deviation of ImageNet, for images in [-1, 1].
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LpipsParams:
    """Weights of a network, with torchvision's names and HWIO kernels, and of its tap channels."""

    net: str = dataclasses.field(metadata={"static": True})  # key of BACKBONES
    weights: Weights
    linear: tuple[Float[Array, " _"], ...]

    @property
    def title(self) -> str:
        """Common name of the network."""
        return BACKBONES[self.net].title


def load_lpips(path: str | os.PathLike[str]) -> LpipsParams:
    """Returns the float32 parameters of a network in `SHIPPED` or from an .npz file.

    `path` is "alex" or "squeeze", or the local or cloud path of a file that docs/lpips.md
    describes. The arrays of a file tell whether its network is AlexNet, SqueezeNet 1.1 or VGG16. A
    file that is missing, is not an .npz file or lacks arrays of the right shape raises a UserError.
    """
    if path in SHIPPED:
        path = SHIPPED_FOLDER / f"{path}.npz"
    stored = read_npz(path, "fa-hific get-lpips", "docs/lpips.md")
    steps = {name: stored.pop(name) for name in list(stored) if name.endswith(STEP)}
    arrays = {n: a * steps[n + STEP] if n + STEP in steps else a for n, a in stored.items()}

    def fitting(net: str) -> int:
        shapes = {name: shape for name, shape in expected_shapes(net).items() if len(shape) == 4}
        return sum(name in arrays and arrays[name].shape == shapes[name] for name in shapes)

    net = max(BACKBONES, key=fitting)
    if not fitting(net):
        raise UserError(
            f"{path}: not LPIPS weights, since no array fits AlexNet, SqueezeNet or VGG16: make "
            "such a file with `fa-hific get-lpips` (docs/lpips.md)"
        )
    return lpips_params(net, arrays, path)


def lpips_params(
    net: str, arrays: Mapping[str, np.ndarray], source: str | os.PathLike[str]
) -> LpipsParams:
    """Returns the parameters of `net`, a key of BACKBONES, from arrays in torchvision's layout.

    An array that is missing, or has another shape, another type or values that are not finite,
    raises a UserError that names it and `source`.
    """
    shapes = expected_shapes(net)
    if wrong := mistakes(arrays, shapes):
        raise UserError(
            f"{source}: not the LPIPS weights of {BACKBONES[net].title} ({wrong}): make the file "
            f"with `fa-hific get-lpips --net {net}`"
        )
    flat = {name: arrays[name].reshape(-1) for name in shapes if name.startswith("lin")}
    ours = parameters({name: arrays[name] for name in shapes} | flat)
    linear = tuple(ours.pop(name) for name in flat)
    return LpipsParams(net, ours, linear)


def expected_shapes(net: str) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every array of `net` in an .npz file: network, then linear weights."""
    backbone, shapes = BACKBONES[net], {}
    for name, shape in backbone.shapes.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    linear = {f"lin{i}.weight": (1, c, 1, 1) for i, c in enumerate(backbone.channels)}
    return shapes | linear


def lpips(params: LpipsParams, x: Image, x_hat: Image) -> Float[Array, " b"]:
    """Returns the LPIPS distance of each pair of RGB images in [0, 1], float32; 0 for equal images.

    Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR
    2018, version 0.1. The gradient between equal images is also 0. Both zeros are approximate if a
    compiler rounds the two sides differently. Images with a side below 31 pixels (AlexNet), 17
    (SqueezeNet) or 16 (VGG16) raise a UserError.
    """
    backbone = BACKBONES[params.net]
    smallest, (height, width) = backbone.smallest_side, x.shape[1:3]
    if min(height, width) < smallest:
        raise UserError(
            f"LPIPS with {backbone.title} needs images of at least {smallest} x {smallest} pixels, "
            f"not {height} x {width}: use larger images or crops"
        )
    # Concatenating the two batches would move images between devices if they are sharded.
    taps, taps_hat = (backbone.features(params.weights, standardized(i)) for i in (x, x_hat))
    distance = jnp.zeros(x.shape[0], jnp.float32)
    for a, b, linear in zip(taps, taps_hat, params.linear, strict=True):
        difference = jnp.square(_unit(a) - _unit(b)) * linear[None, None, None]
        distance += jnp.mean(jnp.sum(difference, axis=-1), axis=(1, 2))
    return distance


def standardized(x: Image) -> Features:
    """Returns images in [0, 1] with the mean and the standard deviation of ImageNet removed."""
    shift, scale = jnp.asarray(SHIFT, jnp.float32), jnp.asarray(SCALE, jnp.float32)
    return (2.0 * x.astype(jnp.float32) - 1.0 - shift[None, None, None]) / scale[None, None, None]


def _unit(features: Features) -> Features:
    """Returns the features divided by (their L2 norm over channels + 1e-10)."""
    squares = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
    # Without the inner `where` the gradient would be NaN at 0, which ReLU often leaves.
    positive = squares > 0
    norm = jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)
    return features / (norm + 1e-10)
