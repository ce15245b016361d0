"""Encoder, hyperprior and generator joined: the model that is trained and that codes images."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fa_hific_jax import ops
from fa_hific_jax.entropy.gaussian import LIKELIHOODS, bits
from fa_hific_jax.fidelity.variants import LEGACY_SIDE, VARIANTS
from fa_hific_jax.models import STRIDE
from fa_hific_jax.models.folded import FoldedEncoder, FoldedGenerator
from fa_hific_jax.models.gains import Gains
from fa_hific_jax.models.hific import Encoder, Generator
from fa_hific_jax.models.hyperprior import Hyperprior
from fa_hific_jax.models.layers import (
    FeatureMaps,
    Features,
    HyperLatents,
    Images,
    LatentFeatures,
    Latents,
    PerImage,
    Size,
    shrunk,
)
from fa_hific_jax.models.linear import CoefficientHyperprior, LinearAnalysis, LinearSynthesis
from fa_hific_jax.models.random import Key, Keys, fold_in, noise, split
from fa_hific_jax.settings.model import ModelConfig, folds


class Rates(NamedTuple):
    """Bits per pixel of the original image, one value per image.

    `noisy` is the differentiable surrogate (additive uniform noise), `rounded` what the symbols
    would cost under the model's own probabilities; neither is the size of a file. In evaluation
    both are the rounded rate. `rounded_y` and `rounded_z` add up to `rounded`.
    """

    noisy: PerImage
    rounded: PerImage
    rounded_y: PerImage
    rounded_z: PerImage


class AutoencoderOutput(NamedTuple):
    """Everything that a loss may want.

    `encoder_features` are A_1, A_2 (finest first), `fcm_features` C_1, C_2 or empty without FCM;
    both belong to the padded image, x_hat has the size of the input and is not clipped. With gains,
    y is what is rounded and y_hat what the generator sees. z_hat holds integers (see `Hyperprior`).
    """

    y: Latents
    y_hat: Latents
    z_hat: HyperLatents
    x_hat: Images
    encoder_features: FeatureMaps
    fcm_features: FeatureMaps
    rates: Rates


class DecoderState(NamedTuple):
    """Output of the decoder's first stage; None for a part that the model does not have."""

    features: LatentFeatures | None
    y_hat: Any


class Autoencoder(nn.Module):
    """The codec as a network: images in [0, 1], NHWC, of any size.

    y is the sum of the analyses that the model has, and x_hat the sum of the syntheses: those of
    HiFiC's encoder and generator or of the folded ones, and those of the linear transform. `dtype`
    replaces the config's data type of the convolutions. "float64" gives the same latents on every
    device and needs JAX's 64-bit mode.
    """

    config: ModelConfig
    dtype: str | None = None

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.dtype or self.config.dtype)
        linear = config.linear_path != "none"
        if config.linear_path != "alone":
            encoder = FoldedEncoder if folds(config.encoder_widths) else Encoder
            self.encoder = encoder(config, dtype)
            if folds(config.generator_widths):
                self.generator = FoldedGenerator(config, dtype)
            else:
                self.generator = Generator(config, dtype, companded=linear)
        if linear:
            self.linear_analysis = LinearAnalysis(config.latent_channels)
            self.linear_synthesis = LinearSynthesis()
        self.hyperprior = (CoefficientHyperprior if linear else Hyperprior)(config, dtype)
        if config.qualities:
            self.gains = Gains(config.qualities, config.latent_channels)

    def __call__(
        self,
        x: Images,
        keys: Keys | None = None,
        quality: PerImage | None = None,
        detail: PerImage | None = None,
    ) -> AutoencoderOutput:
        """Codes and decodes x, with a key for each image as in training, without as the codec does.

        `quality` in [0, 1] chooses the rate of a model with gains, by default 1. `detail` in [0, 1]
        is the share of the FCMs' features that is added, by default 1.

        In training y is rounded around its mean with straight-through gradients for the generator,
        and carries uniform noise for the rate (Minnen & Singh 2020). z is coded with noise too;
        `config.hyper_rounding` says whether its synthesis sees that noise (HiFiC) or the rounded
        z, as the decoder will.
        """
        config = self.config
        if quality is None:
            quality = jnp.ones(len(x))
        y, z, encoder_features = self.analyze(x, quality=quality)
        halves = VARIANTS[config.variant].halves
        rounded = functools.partial(ops.straight_through_round, halves=halves)
        z_rounded = rounded(z)
        if keys is None:
            z_noisy = z_hat = jax.lax.stop_gradient(z_rounded)
            keys_y = keys_dropout = None
        else:
            keys_z, keys_y = split(keys, 2)
            keys_dropout = fold_in(keys, 2)  # 0 and 1 are those of z and y
            z_noisy = z + noise(keys_z, z)
            z_hat = z_noisy if config.hyper_rounding == "noise" else z_rounded
        mean, scale = self.hyperprior.synthesis(z_hat)
        y_hat = mean + rounded(y - mean)
        y_noisy = y_hat if keys_y is None else y + noise(keys_y, y)

        def bpp(likelihood: Features) -> PerImage:
            per_image = jnp.sum(bits(likelihood, config.variant), axis=(1, 2, 3))
            return per_image / (x.shape[1] * x.shape[2])

        likelihood, prior = LIKELIHOODS[config.likelihood], self.hyperprior.prior
        noisy = bpp(likelihood(y_noisy, mean, scale)) + bpp(prior(z_noisy))
        rounded_y, rounded_z = bpp(likelihood(y_hat, mean, scale)), bpp(prior(z_rounded))

        if config.qualities:
            y_hat = y_hat * self.gains.inverse(quality)
        state = self.latent_stage(y_hat)
        x_hat, fcm_features = self.pixel_stage(state, keys=keys_dropout, detail=detail)
        return AutoencoderOutput(
            y=y,
            y_hat=y_hat,
            z_hat=z_rounded,
            x_hat=x_hat[:, : x.shape[1], : x.shape[2]],
            encoder_features=encoder_features,
            fcm_features=fcm_features,
            rates=Rates(noisy, rounded_y + rounded_z, rounded_y, rounded_z),
        )

    def analyze(
        self, x: Images, size: Size | None = None, quality: PerImage | None = None
    ) -> tuple[Latents, HyperLatents, FeatureMaps]:
        """Returns y, z before rounding, and A_1, A_2; x is padded to multiples of STRIDE.

        The true size must be a multiple of STRIDE too. With a `quality`, y is multiplied by its
        gain.
        """
        y, encoder_features = self.encode(ops.pad_to_multiple(x, STRIDE), size)
        if self.config.qualities and quality is not None:
            y = y * self.gains.gain(quality)
        return y, self.hyperprior.analysis(y, shrunk(size, 16)), encoder_features

    def encode(self, x: Images, size: Size | None = None) -> tuple[Latents, FeatureMaps]:
        """Returns y, float32, and A_1, A_2, of images whose sides are multiples of 16."""
        path = self.config.linear_path
        if path == "alone":
            return self.linear_analysis(x, size), ()
        seen = 2.0 * x - 1.0 if self.config.input_range == "symmetric" else x
        y, encoder_features = self.encoder(seen, size)
        if path == "beside":
            y = y + self.linear_analysis(x, size)
        return y, encoder_features

    def generate(self, y_hat: Latents, size: Size | None = None) -> Images:
        """Returns the image of padded size, not clipped, that y_hat (of a true size) stands for."""
        return self.pixel_stage(self.latent_stage(y_hat, size), size)[0]

    def latent_stage(self, y_hat: Latents, size: Size | None = None) -> DecoderState:
        """Returns what the decoder makes of y_hat at the latents' size."""
        path, features = self.config.linear_path, None
        if path != "alone":
            features = ops.at_least_float32(self.generator.trunk(y_hat, size))
        return DecoderState(features, None if path == "none" else ops.at_least_float32(y_hat))

    def pixel_stage(
        self,
        state: DecoderState,
        size: Size | None = None,
        keys: Keys | None = None,
        detail: PerImage | None = None,
    ) -> tuple[Images, FeatureMaps]:
        """Returns the image and C_1, C_2; the arguments are those of `Generator.upsample`."""
        features, y_hat = state
        picture: Any = None if y_hat is None else self.linear_synthesis(y_hat, size)
        if features is None:
            return picture, ()
        sees = {"picture": picture} if folds(self.config.generator_widths) else {}
        image, fcm_features = self.generator.upsample(features, size, keys, detail, **sees)
        if picture is not None:
            image = image + picture
        if self.config.input_range == "symmetric":
            image = 0.5 * jnp.tanh(image) + 0.5
        return image, fcm_features


def bind(config: ModelConfig, params: Any, dtype: str | None = None) -> Autoencoder:
    """Returns the autoencoder with these parameters, whose methods can be called."""
    return Autoencoder(config, dtype).bind({"params": params})


def forward(
    config: ModelConfig,
    params: Any,
    x: Images,
    keys: Keys | None = None,
    quality: PerImage | None = None,
    detail: PerImage | None = None,
) -> AutoencoderOutput:
    """Returns what the autoencoder with these parameters makes of x: see `Autoencoder.__call__`."""
    return bind(config, params)(x, keys, quality, detail)


def init_parameters(config: ModelConfig, key: Key) -> Any:
    """Returns random parameters of an autoencoder, all following from `key`."""
    side = LEGACY_SIDE if config.fcm_width and config.fcm == "legacy" else STRIDE
    return Autoencoder(config).init(key, jnp.zeros((1, side, side, 3)))["params"]


def with_latents_scaled(params: Mapping[str, Any], factors: np.ndarray) -> dict[str, Any]:
    """Returns parameters whose `encode` gives y times a factor for each channel.

    The layers that add up to y are linear in their parameters, so these are multiplied.
    """

    def times(leaf):
        return leaf * factors.reshape(*[1] * (leaf.ndim - 1), -1)

    scaled = dict(params)
    if "encoder" in params:
        last = jax.tree.map(times, params["encoder"]["conv_out"])
        scaled["encoder"] = dict(params["encoder"]) | {"conv_out": last}
    if "linear_analysis" in params:
        scaled["linear_analysis"] = jax.tree.map(times, params["linear_analysis"])
    return scaled
