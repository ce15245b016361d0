"""The feature networks of LPIPS: AlexNet, SqueezeNet 1.1 and VGG16, up to their last tap.

Layers have torchvision's names. Shapes in `Backbone.shapes` have torchvision's order of axes,
(outputs, inputs, height, width). The networks take kernels as (height, width, inputs, outputs) and
images as NHWC. Each returns its taps: the outputs, after ReLU, that LPIPS compares.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Features = Float[Array, "_ _ _ _"]
Weights = Mapping[str, Float[Array, "..."]]


_ALEXNET_SHAPES = {
    "features.0": (64, 3, 11, 11),
    "features.3": (192, 64, 5, 5),
    "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3),
    "features.10": (256, 256, 3, 3),
}
_VGG16_BLOCKS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
_VGG16_CHANNELS = (64, 128, 256, 512, 512)
# Layer, inputs, squeezed channels, channels of each of the two expansions.
_FIRES = (
    (3, 64, 16, 64),
    (4, 128, 16, 64),
    (6, 128, 32, 128),
    (7, 256, 32, 128),
    (9, 256, 48, 192),
    (10, 384, 48, 192),
    (11, 384, 64, 256),
    (12, 512, 64, 256),
)


class Backbone(NamedTuple):
    """A network up to its last tap."""

    title: str
    features: Callable[[Weights, Features], list[Features]]
    shapes: dict[str, tuple[int, ...]]  # of the kernels, as torchvision keeps them
    channels: tuple[int, ...]  # of the taps
    smallest_side: int  # with one pixel less, a pooling or the first convolution has no output


def _alexnet(weights: Weights, x: Features) -> list[Features]:
    """Returns 5 taps, one after each convolution (Krizhevsky, arXiv:1404.5997)."""
    tap0 = _conv(weights, "features.0", x, stride=4, padding=2)
    tap1 = _conv(weights, "features.3", _max_pool(tap0, 3), padding=2)
    tap2 = _conv(weights, "features.6", _max_pool(tap1, 3), padding=1)
    tap3 = _conv(weights, "features.8", tap2, padding=1)
    tap4 = _conv(weights, "features.10", tap3, padding=1)
    return [tap0, tap1, tap2, tap3, tap4]


def _squeezenet(weights: Weights, x: Features) -> list[Features]:
    """Returns 7 taps (Iandola et al., arXiv:1602.07360, version 1.1); poolings are partial."""
    tap0 = _conv(weights, "features.0", x, stride=2)
    tap1 = _fire(weights, 4, _fire(weights, 3, _max_pool(tap0, 3, partial=True)))
    tap2 = _fire(weights, 7, _fire(weights, 6, _max_pool(tap1, 3, partial=True)))
    tap3 = _fire(weights, 9, _max_pool(tap2, 3, partial=True))
    tap4 = _fire(weights, 10, tap3)
    tap5 = _fire(weights, 11, tap4)
    tap6 = _fire(weights, 12, tap5)
    return [tap0, tap1, tap2, tap3, tap4, tap5, tap6]


def vgg16(weights: Weights, x: Features) -> list[Features]:
    """Returns 5 taps, one at the end of each block (Simonyan and Zisserman, arXiv:1409.1556)."""
    taps = []
    for block in _VGG16_BLOCKS:
        if taps:
            x = _max_pool(x, 2)
        for layer in block:
            x = _conv(weights, f"features.{layer}", x, padding=1)
        taps.append(x)
    return taps


def _fire(weights: Weights, layer: int, x: Features) -> Features:
    name = f"features.{layer}"
    squeezed = _conv(weights, f"{name}.squeeze", x)
    expanded = (
        _conv(weights, f"{name}.expand1x1", squeezed),
        _conv(weights, f"{name}.expand3x3", squeezed, padding=1),
    )
    return jnp.concatenate(expanded, axis=-1)


def _conv(
    weights: Weights, name: str, x: Features, *, stride: int = 1, padding: int = 0
) -> Features:
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


def _max_pool(x: Features, window: int, *, partial: bool = False) -> Features:
    """Returns maxima at stride 2; `partial` keeps the last window if it is only partly filled."""
    _, height, width, _ = x.shape
    ends = [(side - window) % 2 if partial else 0 for side in (height, width)]
    padding = ((0, 0), (0, ends[0]), (0, ends[1]), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, 2, 2, 1), padding)


def _vgg16_shapes() -> dict[str, tuple[int, ...]]:
    shapes, inputs = {}, 3
    for block, outputs in zip(_VGG16_BLOCKS, _VGG16_CHANNELS, strict=True):
        for layer in block:
            shapes[f"features.{layer}"] = (outputs, inputs, 3, 3)
            inputs = outputs
    return shapes


def _squeezenet_shapes() -> dict[str, tuple[int, ...]]:
    shapes = {"features.0": (64, 3, 3, 3)}
    for layer, inputs, squeezed, expanded in _FIRES:
        shapes[f"features.{layer}.squeeze"] = (squeezed, inputs, 1, 1)
        shapes[f"features.{layer}.expand1x1"] = (expanded, squeezed, 1, 1)
        shapes[f"features.{layer}.expand3x3"] = (expanded, squeezed, 3, 3)
    return shapes


BACKBONES = {
    "alex": Backbone("AlexNet", _alexnet, _ALEXNET_SHAPES, (64, 192, 384, 256, 256), 31),
    "squeeze": Backbone(
        "SqueezeNet 1.1",
        _squeezenet,
        _squeezenet_shapes(),
        (64, 128, 256, 384, 384, 512, 512),
        17,
    ),
    "vgg": Backbone("VGG16", vgg16, _vgg16_shapes(), _VGG16_CHANNELS, 16),
}
