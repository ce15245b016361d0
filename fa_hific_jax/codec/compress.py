"""Image to bytes and back with a trained model."""

import functools
import hashlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32, UInt8

from fa_hific_jax import ops
from fa_hific_jax.codec import bitstream, coders
from fa_hific_jax.entropy import factorized, tables
from fa_hific_jax.entropy.gaussian import LIKELIHOODS, SCALE_TABLE, bits
from fa_hific_jax.models import autoencoder
from fa_hific_jax.models.autoencoder import STRIDE, ModelConfig

Image = UInt8[np.ndarray, "h w 3"]


class Codec(NamedTuple):
    """A model ready to code: its parameters, integer tables, and the id that files carry."""

    config: ModelConfig
    params: Any
    z_tables: tables.Tables
    y_tables: tables.Tables
    model_id: bytes


class Quantised(NamedTuple):
    """What is coded of one image, and under which distributions."""

    z: Int32[np.ndarray, "hz wz cz"]
    y: Int32[np.ndarray, "hy wy cy"]  # round(y - mean)
    scale: Float32[np.ndarray, "hy wy cy"]


def make_codec(config: ModelConfig, params: Any) -> Codec:
    """Coding tables and id of a model with these parameters of `Autoencoder`."""
    params = jax.device_get(params)
    prior = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["hyperprior"]["prior"])
    layers = factorized.layers_of(prior)
    return Codec(
        config=config,
        params=params,
        z_tables=tables.factorized_tables(
            lambda values: factorized.cdf_logits(layers, values, np), config.hyper_channels
        ),
        y_tables=tables.CONDITIONAL_TABLES[config.likelihood](tables.middle_scales(SCALE_TABLE)),
        model_id=_model_id(config, params),
    )


def compress(codec: Codec, image: Image, coder: str = "constriction") -> bytes:
    """The file of an RGB image, as specified in docs/bitstream.md."""
    return encode(codec, quantise(codec, image), image.shape[0], image.shape[1], coder)


def decompress(codec: Codec, data: bytes) -> Image:
    """The RGB image that a file of `compress` stands for.

    Raises:
      BitstreamError: the file is damaged, was made with another model, or this device computes
        other scales than the one that made it.
    """
    container = bitstream.unpack(data)
    bitstream.check_model(container, codec.model_id)
    height, width = container.height, container.width
    z_shape = (-(-height // STRIDE), -(-width // STRIDE), codec.config.hyper_channels)
    z_indexes = _channel_indexes(z_shape)
    z = coders.decode(container.z_stream, z_indexes, codec.z_tables, container.coder)
    z = z.reshape(z_shape)
    mean, scale = _parameters(codec.config, codec.params, z)
    indexes = tables.scale_indexes(scale.ravel(), SCALE_TABLE)
    y = coders.decode(container.y_stream, indexes, codec.y_tables, container.coder)
    y = y.reshape(mean.shape)
    bitstream.check_symbols(container, z, y)
    y_hat = mean + y.astype(np.float32)
    return np.asarray(_generate(codec.config, codec.params, y_hat))[:height, :width]


def quantise(codec: Codec, image: Image) -> Quantised:
    """Symbols of z and y, and the scales of y."""
    height, width, _ = image.shape
    edges = ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0))
    y, z = _analyse(codec.config, codec.params, np.pad(image, edges, mode="reflect"))
    # The mean must be the decoder's to the bit, so both take it from the same program.
    mean, scale = _parameters(codec.config, codec.params, z)
    symbols = np.floor(np.asarray(y) - mean + np.float32(0.5)).astype(np.int32)
    return Quantised(z=z, y=symbols, scale=scale)


def encode(
    codec: Codec, quantised: Quantised, height: int, width: int, coder: str = "constriction"
) -> bytes:
    """The file of the symbols of an image of this size in pixels."""
    z, y, scale = quantised
    indexes = tables.scale_indexes(scale.ravel(), SCALE_TABLE)
    return bitstream.pack(
        bitstream.Container(
            model_id=codec.model_id,
            coder=coder,
            width=width,
            height=height,
            z_stream=coders.encode(z.ravel(), _channel_indexes(z.shape), codec.z_tables, coder),
            y_stream=coders.encode(y.ravel(), indexes, codec.y_tables, coder),
            alpha_stream=b"",
            symbols_crc=bitstream.symbols_crc(z, y),
        )
    )


def estimated_bits(codec: Codec, quantised: Quantised) -> float:
    """Bits that the symbols cost under the model's own densities, as training estimates them."""
    return float(_bits(codec.config, codec.params, *quantised))


def _channel_indexes(shape: tuple[int, int, int]) -> Int32[np.ndarray, " n"]:
    return np.tile(np.arange(shape[2], dtype=np.int32), shape[0] * shape[1])


def _model_id(config: ModelConfig, params: Any) -> bytes:
    """Hash of the config and of all parameters on which decoding depends."""
    digest = hashlib.sha256(repr(config).encode())
    decoder = {"hyperprior": params["hyperprior"], "generator": params["generator"]}
    for path, leaf in jax.tree_util.tree_leaves_with_path(decoder):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf, np.dtype("<f4")).tobytes())
    return digest.digest()[:8]


@functools.partial(jax.jit, static_argnums=0)
def _analyse_program(config, params, image):
    x = image[None].astype(jnp.float32) / 255.0
    y, z, _ = autoencoder.apply(config, params, x, method="analyse")
    return y[0], ops.round_half_up(z[0]).astype(jnp.int32)


@functools.partial(jax.jit, static_argnums=0)
def _parameters_program(config, params, z):
    z_hat = z[None].astype(jnp.float32)
    mean, scale = autoencoder.apply(config, params, z_hat, method="synthesise_parameters")
    return mean[0], scale[0]


@functools.partial(jax.jit, static_argnums=0)
def _generate(config, params, y_hat):
    x_hat = autoencoder.apply(config, params, y_hat[None], method="generate")[0]
    return ops.round_half_up(jnp.clip(x_hat, 0.0, 1.0) * 255.0).astype(jnp.uint8)


@functools.partial(jax.jit, static_argnums=0)
def _bits(config, params, z, y, scale):
    z_likelihood = autoencoder.apply(
        config, params, z[None].astype(jnp.float32), method="prior_likelihood"
    )
    likelihood = LIKELIHOODS[config.likelihood]
    y_likelihood = likelihood(y.astype(jnp.float32), jnp.zeros_like(scale), scale)
    both = (z_likelihood, y_likelihood)
    return sum(jnp.sum(bits(likelihood, config.variant)) for likelihood in both)


def _analyse(config, params, image):
    y, z = _analyse_program(config, params, image)
    return np.asarray(y), np.asarray(z)


def _parameters(config, params, z):
    mean, scale = _parameters_program(config, params, z)
    return np.asarray(mean), np.asarray(scale)
