"""Settings of the networks: groups `model` and `discriminator`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fa_hific_jax.fidelity.variants import VARIANTS
from fa_hific_jax.settings.declare import (
    NOT_NEGATIVE,
    SHARE,
    Group,
    Rule,
    at_least,
    one_of,
    setting,
)

FCM_KINDS = ("hific", "conv", "residual", "attention", "legacy")
"""Values of `model.fcm`: kinds of frequency complement modules."""

BLOCK_VALUES = 768
"""Number of values of a block of 16 x 16 RGB pixels: the most latents that the linear path has."""

LATER = {"qualities": 0, "linear_path": "none"}
"""Keys, with their defaults, that models exported by the first versions lack."""

_WIDTHS = Rule(
    lambda widths: len(widths) in (3, 5) and min(widths) >= 1,
    "give five widths of at least 1, one for each level from 1 to 1/16 of the image's size, or "
    "three for levels from 1/4 to 1/16",
)
_DISCRIMINATOR_WIDTHS = Rule(
    lambda widths: len(widths) >= 1 and min(widths) >= 1, "give one or more widths of at least 1"
)
_QUALITIES = Rule(lambda n: n == 0 or n >= 2, "give 0 for a single rate, or at least 2")


def folds(widths: tuple[int, ...]) -> bool:
    """Returns whether a network of these widths begins or ends with 4x4 pixels as channels."""
    return len(widths) == 3


@dataclasses.dataclass(frozen=True)
class ModelConfig(Group, name="model"):
    """Settings that shape the autoencoder: group `model`."""

    variant: str = setting("pytorch", one_of(*VARIANTS))
    """Implementation whose networks are used. `"pytorch"` is Justin-Tan's, on which FA-HiFiC was
    built; its convolutions reflect the edges. `"tensorflow"` is the original; it pads with zeros
    and has another discriminator. `"neuralcompression"` is that of the MS-ILLM models; it pads with
    zeros and rounds z around medians. docs/fidelity.md lists all differences."""
    input_range: str = setting("unit", one_of("unit", "symmetric"))
    """Value range of the images that the networks see and make. `"unit"` is 0 to 1. `"symmetric"`
    is -1 to 1 with tanh as the last operation, as in the published low and high models of PyTorch
    HiFiC."""
    likelihood: str = setting("gaussian", one_of("gaussian", "logistic"))
    """Conditional distribution of the latents y: `"gaussian"` (HiFiC), or `"logistic"` as in the
    published medium model of PyTorch HiFiC."""
    encoder_widths: tuple[int, ...] = setting((60, 120, 240, 480, 960), _WIDTHS)
    """Channels of the encoder's five levels, finest level first (HiFiC). Three widths choose an
    encoder that folds 4x4 pixels into channels and has levels from 1/4 to 1/16 of the image's size,
    which a CPU computes faster (`fa_hific_jax/models/folded.py`)."""
    generator_widths: tuple[int, ...] = setting((960, 480, 240, 120, 60), _WIDTHS)
    """Channels of the generator (HiFiC): first those of its head at 1/16 of the image's size, then
    those of its four upsampling layers. Three widths choose one that ends at 1/4 with 4x4 pixels in
    channels, and there refines the picture of the linear path."""
    latent_channels: int = setting(220, at_least(1))
    """Channels of the latents y (HiFiC)."""
    hyper_channels: int = setting(320, at_least(1))
    """Channels of the hyper-latents z and of the networks around them (HiFiC)."""
    residual_blocks: int = setting(9, NOT_NEGATIVE)
    """Residual blocks of the generator (HiFiC)."""
    fcm_width: int = setting(0, NOT_NEGATIVE)
    """Channels inside the frequency complement modules (FCM), 0 for a model without FCM (FA-HiFiC:
    64)."""
    fcm: str = setting("hific", one_of(*FCM_KINDS))
    """Kind of the FCMs. `"hific"` is three times ChannelNorm, ReLU and convolution. `"conv"`,
    `"residual"` and `"attention"` are those of FA-VAE; attention works at half the image's size,
    and its time grows with the square of the number of pixels. `"legacy"` is the module of the
    FA-HiFiC authors' code, for images of 256x256 pixels alone. Only with `"hific"` do the tiles of
    an image decode to the same pixels as the whole image."""
    fcm_dropout: float = setting(0.0, SHARE)
    """Share of the FCMs' activations that is set to zero in training (FA-HiFiC: 0.5; FA-VAE: 0, and
    0.1 next to attention)."""
    hyper_rounding: str = setting("noise", one_of("noise", "straight_through"))
    """Input of the hyper-synthesis in training: `"noise"` adds uniform noise to z (HiFiC),
    `"straight_through"` rounds z, as the decoder does, and lets the gradient pass unchanged."""
    qualities: int = setting(0, _QUALITIES)
    """Number of qualities at which gains of the latents y are learned, 0 for a model of one rate
    (HiFiC). A model with gains needs at least 2 qualities and `loss.rate_control="quality"`; it
    codes at every rate between its lowest and its highest quality."""
    linear_path: str = setting("none", one_of("none", "beside", "alone"))
    """Use of a linear transform of 16x16 blocks, initialized as the DCT. `"none"` leaves it out
    (HiFiC). `"beside"` adds it to encoder and generator, which then learn only what a transform
    codec lacks. `"alone"` replaces them, which trains the hyperprior in minutes
    (docs/concepts.md)."""
    dtype: str = setting("float32", one_of("float32", "bfloat16"))
    """Data type of the convolutions, `"float32"` or `"bfloat16"`. Norms, rates and losses are
    always float32."""

    def __post_init__(self):
        super().__post_init__()
        self.require(
            not (self.fcm_width and self.fcm == "legacy" and folds(self.generator_widths)),
            "fcm",
            "it takes features of 256x256 and 128x128, so give five model.generator_widths",
        )
        plain, alone = self.linear_path == "none", self.linear_path == "alone"
        wanted = 'the linear path makes images in [0, 1], so set model.input_range="unit"'
        self.require(plain or self.input_range == "unit", "input_range", wanted)
        wanted = f"with a linear path it must be at most {BLOCK_VALUES}, the values of a block"
        self.require(plain or self.latent_channels <= BLOCK_VALUES, "latent_channels", wanted)
        wanted = "model.linear_path='alone' has no generator, so set model.fcm_width=0"
        self.require(not (alone and self.fcm_width), "fcm_width", wanted)


def config_of(stored: Mapping[str, Any]) -> ModelConfig:
    """Returns the config from its JSON; raises a TypeError for missing or unknown fields."""
    names = {field.name for field in dataclasses.fields(ModelConfig)}
    if odd := names ^ set(LATER | dict(stored)):
        raise TypeError(f"missing or unknown: {', '.join(sorted(odd))}")
    return ModelConfig.read(stored)


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig(Group, name="discriminator"):
    """Settings that shape the discriminator: group `discriminator`."""

    widths: tuple[int, ...] = setting((64, 128, 256, 512), _DISCRIMINATOR_WIDTHS)
    """Channels of the 4x4 convolutions; all but the last have stride 2 (HiFiC)."""
    context_channels: int = setting(12, at_least(1))
    """Channels to which the latents that condition it are reduced (HiFiC)."""
