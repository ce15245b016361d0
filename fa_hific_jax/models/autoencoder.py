"""Encoder, hyperprior and generator joined: the model that is trained and that codes images."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.entropy.gaussian import LIKELIHOODS, bits
from fa_hific_jax.fidelity.variants import LEGACY_SIDE, VARIANTS
from fa_hific_jax.models import STRIDE
from fa_hific_jax.models.encoder import Encoder
from fa_hific_jax.models.folded.encoder import FoldedEncoder
from fa_hific_jax.models.folded.generator import FoldedGenerator
from fa_hific_jax.models.gains import Gains
from fa_hific_jax.models.generator import Generator
from fa_hific_jax.models.hyperprior import Hyperprior
from fa_hific_jax.models.layers import Size
from fa_hific_jax.models.linear.hyperprior import CoefficientHyperprior
from fa_hific_jax.models.linear.transform import LinearAnalysis, LinearSynthesis
from fa_hific_jax.models.random import Key, Keys, fold_in, noise, split
from fa_hific_jax.settings.model import ModelConfig, folds

Images = Float[Array, "b h w 3"]
Latents = Float[Array, "b hy wy cy"]
HyperLatents = Float[Array, "b hz wz cz"]
PerImage = Float[Array, " b"]


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
    encoder_features: tuple[Float[Array, "b _ _ _"], ...]
    fcm_features: tuple[Float[Array, "b _ _ _"], ...]
    rates: Rates


class DecoderState(NamedTuple):
    """Output of the decoder's first stage, which works at the latents' size.

    Both fields have the height and width of y_hat. A part that the model does not have is None.
    """

    features: Float[Array, "b hy wy f"] | None
    y_hat: Any


class Autoencoder(nn.Module):
    """The codec as a network: images in [0, 1], NHWC, of any size.

    y is the sum of the analyses that the model has, and x_hat the sum of the syntheses: those of
    HiFiC's encoder and generator or of the folded ones, and those of the linear transform. This
    class alone decides what each of them needs beside the other.

    Attributes:
      config: shape of the networks.
      dtype: data type of the convolutions, instead of the config's. "float64" gives the same
        latents on every device and needs JAX's 64-bit mode.
    """

    config: ModelConfig
    dtype: str | None = None

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.dtype or self.config.dtype)
        variant, linear = config.variant, config.linear_path != "none"
        if config.linear_path != "alone":
            # Beside the linear transform the networks begin by adding nothing.
            last = nn.initializers.zeros if linear else nn.initializers.glorot_uniform()
            shape = config.encoder_widths, config.latent_channels
            if folds(config.encoder_widths):
                self.encoder = FoldedEncoder(*shape, dtype, last)
            else:
                self.encoder = Encoder(*shape, variant, dtype, last)
            fcm = (config.fcm, config.fcm_width, config.fcm_dropout) if config.fcm_width else None
            shape = config.generator_widths, config.residual_blocks
            if folds(config.generator_widths):
                self.generator = FoldedGenerator(*shape, dtype, fcm, last)
            else:
                self.generator = Generator(*shape, variant, dtype, fcm, linear, last)
        if linear:
            self.linear_analysis = LinearAnalysis(config.latent_channels)
            self.linear_synthesis = LinearSynthesis()
        hyperprior = CoefficientHyperprior if linear else Hyperprior
        self.hyperprior = hyperprior(config.hyper_channels, config.latent_channels, variant, dtype)
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
        if quality is None:
            quality = jnp.ones(len(x))
        y, z, encoder_features = self.analyze(x, quality=quality)
        rounded = functools.partial(
            ops.straight_through_round, halves=VARIANTS[self.config.variant].halves
        )
        z_rounded = rounded(z)
        if keys is None:
            z_noisy = z_hat = jax.lax.stop_gradient(z_rounded)
            keys_y = keys_dropout = None
        else:
            keys_z, keys_y = split(keys, 2)
            keys_dropout = fold_in(keys, 2)  # 0 and 1 are those of z and y
            z_noisy = z + noise(keys_z, z)
            z_hat = z_noisy if self.config.hyper_rounding == "noise" else z_rounded
        mean, scale = self.hyperprior.synthesis(z_hat)
        y_hat = mean + rounded(y - mean)
        y_noisy = y_hat if keys_y is None else y + noise(keys_y, y)

        likelihood, prior = LIKELIHOODS[self.config.likelihood], self.hyperprior.prior
        bpp = functools.partial(_bpp, pixels=x.shape[1] * x.shape[2], variant=self.config.variant)
        bpp_y, bpp_z = bpp(likelihood(y_noisy, mean, scale)), bpp(prior(z_noisy))
        rounded_y, rounded_z = bpp(likelihood(y_hat, mean, scale)), bpp(prior(z_rounded))

        if self.config.qualities:
            y_hat = y_hat * self.gains.inverse(quality)
        x_hat, fcm_features = self.pixel_stage(
            self.latent_stage(y_hat), keys=keys_dropout, detail=detail
        )
        return AutoencoderOutput(
            y=y,
            y_hat=y_hat,
            z_hat=z_rounded,
            x_hat=x_hat[:, : x.shape[1], : x.shape[2]],
            encoder_features=encoder_features,
            fcm_features=fcm_features,
            rates=Rates(bpp_y + bpp_z, rounded_y + rounded_z, rounded_y, rounded_z),
        )

    def analyze(self, x: Images, size: Size | None = None, quality: PerImage | None = None):
        """Returns y, z before rounding, and A_1, A_2; x is padded to multiples of STRIDE.

        With a `size`, a multiple of STRIDE too, these are of the part of x at its top left. With a
        `quality`, y is multiplied by its gain.
        """
        y, encoder_features = self.encode(ops.pad_to_multiple(x, STRIDE), size)
        if self.config.qualities and quality is not None:
            y = y * self.gains.gain(quality)
        latent_size = None if size is None else (size[0] // 16, size[1] // 16)
        return y, self.hyperprior.analysis(y, latent_size), encoder_features

    def encode(self, x: Images, size: Size | None = None):
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
        """Returns the image of padded size that y_hat stands for, not clipped.

        With a `size`, that of the latents of this size at the top left of y_hat.
        """
        return self.pixel_stage(self.latent_stage(y_hat, size), size)[0]

    def latent_stage(self, y_hat: Latents, size: Size | None = None) -> DecoderState:
        """Returns what the decoder makes of y_hat at the latents' size; `size` as in `generate`."""
        path = self.config.linear_path
        features = None
        if path != "alone":
            features = ops.at_least_float32(self.generator.trunk(y_hat, size))
        return DecoderState(features, None if path == "none" else ops.at_least_float32(y_hat))

    def pixel_stage(
        self,
        state: DecoderState,
        size: Size | None = None,
        keys: Keys | None = None,
        detail: PerImage | None = None,
    ) -> tuple[Images, tuple[Float[Array, "b _ _ _"], ...]]:
        """Returns the image, nominally in [0, 1] and not clipped, and C_1, C_2.

        `size` is that of the latents. Keys and detail are those of `Generator.__call__`.
        """
        features, y_hat = state
        if features is None:
            return self.linear_synthesis(y_hat, size), ()
        picture = None if y_hat is None else self.linear_synthesis(y_hat, size)
        if isinstance(self.generator, FoldedGenerator):
            image, fcm_features = self.generator.upsample(features, picture, size, keys, detail)
        else:
            image, fcm_features = self.generator.upsample(features, size, keys, detail)
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


def with_latents_scaled(
    params: Mapping[str, Any], factors: Float[np.ndarray, " cy"]
) -> dict[str, Any]:
    """Returns parameters whose `encode` gives y times a factor for each channel.

    The layers that add up to y are linear in their parameters, so these are multiplied.
    """
    scaled = dict(params)
    if "encoder" in params:
        last = params["encoder"]["conv_out"]
        scaled["encoder"] = dict(params["encoder"]) | {"conv_out": _times(last, factors)}
    if "linear_analysis" in params:
        scaled["linear_analysis"] = _times(params["linear_analysis"], factors)
    return scaled


def _times(tree: Any, factors: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf * factors.reshape(*[1] * (leaf.ndim - 1), -1), tree)


def _bpp(likelihood: Float[Array, "b h w c"], pixels: int, variant: str) -> PerImage:
    return jnp.sum(bits(likelihood, variant), axis=(1, 2, 3)) / pixels
