"""Encoder, hyperprior and generator joined: the model that is trained and that codes images."""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from fa_hific_jax import ops
from fa_hific_jax.entropy.gaussian import LIKELIHOODS, bits
from fa_hific_jax.models.encoder import Encoder
from fa_hific_jax.models.gains import Gains
from fa_hific_jax.models.generator import Generator
from fa_hific_jax.models.hyperprior import Hyperprior
from fa_hific_jax.models.layers import Size
from fa_hific_jax.models.linear_path import VALUES, spread
from fa_hific_jax.settings.model import LEGACY_SIDE, ModelConfig

STRIDE = 64
"""Pixels to one hyper-latent: images are padded to a multiple of it."""

Images = Float[Array, "b h w 3"]
Latents = Float[Array, "b hy wy cy"]
HyperLatents = Float[Array, "b hz wz cz"]
PerImage = Float[Array, " b"]
Key = PRNGKeyArray | UInt32[Array, "2"]


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
    y is what is rounded and y_hat what the generator sees.
    """

    y: Latents
    y_hat: Latents
    z_hat: HyperLatents
    x_hat: Images
    encoder_features: tuple[Float[Array, "b _ _ _"], ...]
    fcm_features: tuple[Float[Array, "b _ _ _"], ...]
    rates: Rates


class Autoencoder(nn.Module):
    """The codec as a network: images in [0, 1], NHWC, of any size.

    Attributes:
      config: shape of the networks.
      dtype: in which convolutions are computed, instead of the config's ("float64" gives the same
        latents on every device and needs JAX's 64-bit mode).
    """

    config: ModelConfig
    dtype: str | None = None

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.dtype or self.config.dtype)
        variant = config.variant
        self.encoder = Encoder(
            config.encoder_widths, config.latent_channels, variant, dtype, config.linear_path
        )
        linear = config.linear_path != "none"
        self.hyperprior = Hyperprior(
            config.hyper_channels,
            config.latent_channels,
            variant,
            dtype,
            spread=tuple(spread(config.latent_channels)) if linear else (),
        )
        self.generator = Generator(
            config.generator_widths,
            config.residual_blocks,
            config.fcm_width,
            variant=variant,
            dtype=dtype,
            fcm=config.fcm,
            fcm_dropout=config.fcm_dropout,
            linear_path=config.linear_path,
        )
        if config.qualities:
            self.gains = Gains(config.qualities, config.latent_channels)

    def __call__(
        self,
        x: Images,
        key: Key | None = None,
        quality: PerImage | None = None,
        detail: PerImage | None = None,
    ) -> AutoencoderOutput:
        """Codes and decodes x; with a key as in training, without one as the codec does.

        `quality` in [0, 1] chooses the rate of a model with gains, 1 without; other models have no
        use for it. `detail` in [0, 1] is the share of the FCMs' features that is added, 1 without.

        In training y is rounded around its mean with straight-through gradients for the generator,
        and carries uniform noise for the rate (Minnen & Singh 2020). z is coded with noise too;
        `config.hyper_rounding` says whether its synthesis sees that noise (HiFiC) or the rounded
        z, as the decoder will.
        """
        if quality is None:
            quality = jnp.ones(len(x))
        y, z, encoder_features = self.analyse(x, quality=quality)
        z_rounded = ops.straight_through_round(z)
        if key is None:
            z_noisy = z_hat = ops.round_half_up(z)
            key_dropout = None
        else:
            key_z, key_y = jax.random.split(key)
            key_dropout = jax.random.fold_in(key, 2)  # 0 and 1 are those of z and y
            z_noisy = z + jax.random.uniform(key_z, z.shape, z.dtype, -0.5, 0.5)
            z_hat = z_noisy if self.config.hyper_rounding == "noise" else z_rounded
        mean, scale = self.synthesise_parameters(z_hat)
        y_hat = mean + ops.straight_through_round(y - mean)
        y_noisy = (
            y_hat if key is None else y + jax.random.uniform(key_y, y.shape, y.dtype, -0.5, 0.5)
        )

        likelihood = LIKELIHOODS[self.config.likelihood]
        bpp = functools.partial(_bpp, pixels=x.shape[1] * x.shape[2], variant=self.config.variant)
        bpp_y, bpp_z = bpp(likelihood(y_noisy, mean, scale)), bpp(self.prior_likelihood(z_noisy))
        rounded_y = bpp(likelihood(y_hat, mean, scale))
        rounded_z = bpp(self.prior_likelihood(z_rounded))

        if self.config.qualities:
            y_hat = y_hat * self.gains.inverse(quality)
        x_hat, fcm_features = self._generate(y_hat, key=key_dropout, detail=detail)
        return AutoencoderOutput(
            y=y,
            y_hat=y_hat,
            z_hat=z_rounded,
            x_hat=x_hat[:, : x.shape[1], : x.shape[2]],
            encoder_features=encoder_features,
            fcm_features=fcm_features,
            rates=Rates(bpp_y + bpp_z, rounded_y + rounded_z, rounded_y, rounded_z),
        )

    def analyse(self, x: Images, size: Size | None = None, quality: PerImage | None = None):
        """y, z before rounding, and A_1, A_2 of images that are padded to a multiple of STRIDE.

        With a `size`, a multiple of STRIDE too, those of the part of x at its top left; with a
        `quality`, y is multiplied by its gain.
        """
        y, encoder_features = self.encode(ops.pad_to_multiple(x, STRIDE), size)
        if self.config.qualities and quality is not None:
            y = y * self.gains.gain(quality)
        latent_size = None if size is None else (size[0] // 16, size[1] // 16)
        return y, self.hyperprior.analysis(y, latent_size), encoder_features

    def encode(self, x: Images, size: Size | None = None):
        """y, and A_1, A_2, of images whose sides are multiples of 16."""
        if self.config.input_range == "symmetric":
            x = 2.0 * x - 1.0
        y, encoder_features = self.encoder(x, size)
        return ops.at_least_float32(y), encoder_features

    def synthesise_parameters(self, z_hat: HyperLatents) -> tuple[Latents, Latents]:
        """Mean and scale of y under the decoded hyper-latents."""
        return self.hyperprior.synthesis(z_hat)

    def prior_likelihood(self, z: HyperLatents) -> HyperLatents:
        """Probability of each hyper-latent under its prior."""
        return self.hyperprior.prior(z)

    def generate(self, y_hat: Latents, size: Size | None = None) -> Images:
        """The image of the padded size that y_hat stands for, not clipped.

        With a `size`, that of the latents of this size at the top left of y_hat.
        """
        return self._generate(y_hat, size)[0]

    def trunk(self, y_hat: Latents, size: Size | None = None) -> Float[Array, "b hy wy c"]:
        """The first half of `generate`, at the latents' size."""
        return self.generator.trunk(y_hat, size)

    def enlarge(self, features: Float[Array, "b hy wy c"], size: Size | None = None) -> Images:
        """The second half of `generate`, from what `trunk` puts out."""
        return self._unit(self.generator.enlarge(features, size)[0])

    def _generate(
        self,
        y_hat: Latents,
        size: Size | None = None,
        key: Key | None = None,
        detail: PerImage | None = None,
    ):
        """Images in [0, 1], nominally, and C_1, C_2."""
        x_hat, fcm_features = self.generator(y_hat, size, key, detail)
        return self._unit(x_hat), fcm_features

    def _unit(self, x_hat: Images) -> Images:
        return 0.5 * jnp.tanh(x_hat) + 0.5 if self.config.input_range == "symmetric" else x_hat


def trunk_channels(config: ModelConfig) -> int:
    """Of what `Autoencoder.trunk` puts out."""
    trunk = 0 if config.linear_path == "alone" else config.generator_widths[0]
    return trunk if config.linear_path == "none" else trunk + VALUES


def apply(
    config: ModelConfig,
    params: Any,
    *args: Any,
    method: str = "__call__",
    dtype: str | None = None,
) -> Any:
    """What a method of the `Autoencoder` with these parameters returns for `args`."""
    return Autoencoder(config, dtype).apply({"params": params}, *args, method=method)


def init_parameters(config: ModelConfig, key: Key) -> Any:
    """Random parameters of an autoencoder, all following from `key`."""
    side = LEGACY_SIDE if config.fcm_width and config.fcm == "legacy" else STRIDE
    return Autoencoder(config).init(key, jnp.zeros((1, side, side, 3)))["params"]


def _bpp(likelihood: Float[Array, "b h w c"], pixels: int, variant: str) -> PerImage:
    return jnp.sum(bits(likelihood, variant), axis=(1, 2, 3)) / pixels
