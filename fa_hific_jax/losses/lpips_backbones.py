"""The feature networks of LPIPS: AlexNet, SqueezeNet 1.1 and VGG16, up to their last tap.

Taps are the outputs, after ReLU, that LPIPS compares. Layers have torchvision's names, and shapes
its order of axes, (outputs, inputs, height, width). The networks take kernels as (height, width,
inputs, outputs) and images as NHWC.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

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
    Layer(i, channels, padding=1, pool=2 * (0 < i == block[0]), tap=i == block[-1])
    for channels, block in _VGG16_BLOCKS
    for i in block
)

BACKBONES = {
    "alex": Backbone("AlexNet", 31, _ALEXNET),
    "squeeze": Backbone("SqueezeNet 1.1", 17, _SQUEEZENET, partial_pools=True),
    "vgg": Backbone("VGG16", 16, _VGG16),
}
