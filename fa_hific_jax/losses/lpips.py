"""LPIPS v0.1: a perceptual distance in the features of a frozen network.

The networks are AlexNet, SqueezeNet 1.1 and VGG16, up to their last tap. Taps are the outputs,
after ReLU, that LPIPS compares. Layers have torchvision's names, and shapes its order of axes,
(outputs, inputs, height, width). The networks take kernels as (height, width, inputs, outputs) and
images as NHWC.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from fa_hific_jax.errors import UserError
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

Features = Float[Array, "_ _ _ _"]
Weights = Mapping[str, Float[Array, "..."]]


class Layer(NamedTuple):
    """A convolution or, with squeezed channels, a fire module: 1x1, then 1x1 beside 3x3."""

    index: int  # in torchvision's names
    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 0
    squeezed: int = 0
    pool: int = 0  # window of the max pooling before the layer, 0 for none
    tap: bool = True


class Backbone(NamedTuple):
    """A network up to its last tap."""

    title: str
    smallest_side: int  # with one pixel less, a pooling or the first convolution has no output
    layers: tuple[Layer, ...]
    partial_pools: bool = False  # True to pool also a last window that is only partly filled

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the taps."""
        return tuple(layer.channels for layer in self.layers if layer.tap)

    @property
    def shapes(self) -> dict[str, tuple[int, int, int, int]]:
        """Shapes of the kernels, as torchvision keeps them."""
        shapes, inputs = {}, 3
        for layer in self.layers:
            name, squeezed = f"features.{layer.index}", layer.squeezed
            if squeezed:
                shapes[f"{name}.squeeze"] = (squeezed, inputs, 1, 1)
                for k in (1, 3):
                    shapes[f"{name}.expand{k}x{k}"] = (layer.channels // 2, squeezed, k, k)
            else:
                shapes[name] = (layer.channels, inputs, layer.kernel, layer.kernel)
            inputs = layer.channels
        return shapes

    def features(self, weights: Weights, x: Features) -> list[Features]:
        """Returns the taps of standardized images."""
        taps = []
        for layer in self.layers:
            name = f"features.{layer.index}"
            if layer.pool:
                x = _max_pool(x, layer.pool, self.partial_pools)
            if layer.squeezed:
                x = _conv(weights, f"{name}.squeeze", x)
                sides = [_conv(weights, f"{name}.expand{k}x{k}", x, 1, k // 2) for k in (1, 3)]
                x = jnp.concatenate(sides, axis=-1)
            else:
                x = _conv(weights, name, x, layer.stride, layer.padding)
            if layer.tap:
                taps.append(x)
        return taps


def _conv(weights: Weights, name: str, x: Features, stride: int = 1, padding: int = 0) -> Features:
    """Returns the convolution with bias and ReLU."""
    h = lax.conv_general_dilated(
        x,
        weights[f"{name}.weight"],
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,  # Accelerators would round to 8 or 11 bits.
    )
    return jax.nn.relu(h + weights[f"{name}.bias"][None, None, None])


def _max_pool(x: Features, window: int, partial: bool) -> Features:
    ends = [(side - window) % 2 if partial else 0 for side in x.shape[1:3]]
    padding = ((0, 0), (0, ends[0]), (0, ends[1]), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, 2, 2, 1), padding)


# Krizhevsky, arXiv:1404.5997.
_ALEXNET = (
    Layer(0, 64, 11, stride=4, padding=2),
    Layer(3, 192, 5, padding=2, pool=3),
    Layer(6, 384, padding=1, pool=3),
    Layer(8, 256, padding=1),
    Layer(10, 256, padding=1),
)
# Iandola et al., arXiv:1602.07360, version 1.1.
_SQUEEZENET = (
    Layer(0, 64, stride=2),
    Layer(3, 128, squeezed=16, pool=3, tap=False),
    Layer(4, 128, squeezed=16),
    Layer(6, 256, squeezed=32, pool=3, tap=False),
    Layer(7, 256, squeezed=32),
    Layer(9, 384, squeezed=48, pool=3),
    Layer(10, 384, squeezed=48),
    Layer(11, 512, squeezed=64),
    Layer(12, 512, squeezed=64),
)
# Simonyan and Zisserman, arXiv:1409.1556: channels and layers of each block.
_VGG16_BLOCKS = (
    (64, (0, 2)),
    (128, (5, 7)),
    (256, (10, 12, 14)),
    (512, (17, 19, 21)),
    (512, (24, 26, 28)),
)
_VGG16 = tuple(
    Layer(i, channels, padding=1, pool=2 if 0 < i == block[0] else 0, tap=i == block[-1])
    for channels, block in _VGG16_BLOCKS
    for i in block
)

BACKBONES = {
    "alex": Backbone("AlexNet", 31, _ALEXNET),
    "squeeze": Backbone("SqueezeNet 1.1", 17, _SQUEEZENET, partial_pools=True),
    "vgg": Backbone("VGG16", 16, _VGG16),
}


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
