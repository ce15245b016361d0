"""Images to bytes and back: lossless symbols, honest sizes, and files of others refused."""

import dataclasses
import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import demo
from fa_hific_jax import ops
from fa_hific_jax.codec import bitstream, compress
from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.models.autoencoder import STRIDE, Autoencoder, ModelConfig, init_parameters

SIZES = [(1, 1), (1, 7), (63, 65), (64, 64), (130, 70)]  # height, width
# The header of docs/bitstream.md at these sizes: 22 bytes and four varints of 1 or 2 bytes.
HEADER = 22 + 4 * 2


def model_config() -> ModelConfig:
    config = demo.get_config().model.to_dict()
    widths = (4, 4, 4, 4, 4)
    return ModelConfig(
        **config
        | {
            "encoder_widths": widths,
            "generator_widths": widths,
            "latent_channels": 4,
            "hyper_channels": 4,
            "residual_blocks": 1,
            "fcm_width": 4,
        }
    )


@functools.cache
def random_params(seed: int = 1):
    """Parameters under which symbols spread, mostly within what their scales predict."""
    params = jax.jit(functools.partial(init_parameters, model_config()))(jax.random.key(seed))
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    noisy = [leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    params = jax.tree.unflatten(tree, noisy)
    params["encoder"]["conv_out"] = jax.tree.map(
        lambda leaf: 3.0 * leaf, params["encoder"]["conv_out"]
    )
    last = params["hyperprior"]["synthesis_scale"]["conv2"]["Conv_0"]
    last["bias"] = last["bias"] + 4.0
    return params


@functools.cache
def codec(seed: int = 1) -> compress.Codec:
    return compress.make_codec(model_config(), random_params(seed))


def image_of(height: int, width: int) -> np.ndarray:
    """A wave under noise, so that neighbouring pixels have something in common."""
    y, x = np.mgrid[:height, :width]
    wave = 128 + 90 * np.sin(x / 9.0 + y / 5.0)
    noise = np.random.default_rng(height * 1000 + width).normal(0, 20, (height, width, 3))
    return np.clip(wave[..., None] + noise, 0, 255).astype(np.uint8)


@functools.partial(jax.jit, static_argnums=0)
def forward(config, params, image):
    """Symbols of z, of y around its mean, the 8-bit image and the rounded rate, in one pass."""
    model = Autoencoder(config)
    out = model.apply({"params": params}, image[None].astype(jnp.float32) / 255.0)
    mean, _ = model.apply({"params": params}, out.z_hat, method="synthesise_parameters")
    pixels = ops.round_half_up(jnp.clip(out.x_hat[0], 0.0, 1.0) * 255.0)
    return out.z_hat[0], jnp.round(out.y_hat - mean)[0], pixels, out.rates.rounded[0]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_file_decodes_to_the_forward_pass_of_the_autoencoder(height, width):
    image = image_of(height, width)
    quantised = compress.quantise(codec(), image)
    data = compress.encode(codec(), quantised, height, width)
    decoded = compress.decompress(codec(), data)
    assert decoded.shape == image.shape
    assert decoded.dtype == np.uint8
    z, y, pixels, bpp_rounded = forward(model_config(), random_params(), image)
    np.testing.assert_array_equal(quantised.z, np.asarray(z))
    np.testing.assert_array_equal(quantised.y, np.asarray(y))
    # Other programs of the same network may round x_hat differently in its last bits.
    assert np.max(np.abs(decoded - np.asarray(pixels))) <= 1
    estimated = compress.estimated_bits(codec(), quantised)
    assert estimated == pytest.approx(float(bpp_rounded) * height * width, rel=1e-3)


@pytest.mark.parametrize(("height", "width"), [*SIZES, (512, 640)])
def test_file_has_the_estimated_size(height, width):
    quantised = compress.quantise(codec(), image_of(height, width))
    size = len(compress.encode(codec(), quantised, height, width))
    estimated = compress.estimated_bits(codec(), quantised) / 8
    assert abs(size - HEADER - estimated) <= 0.01 * estimated + 16


def test_symbols_of_these_images_are_worth_coding():
    quantised = compress.quantise(codec(), image_of(130, 70))
    assert len(np.unique(quantised.y)) > 4
    assert len(np.unique(quantised.z)) > 2
    assert len(np.unique(quantised.scale)) > 100


def test_compressing_twice_gives_the_same_bytes_and_decompressing_the_same_image():
    image = image_of(63, 65)
    first, second = (compress.compress(codec(), image) for _ in range(2))
    assert first == second
    again = compress.make_codec(model_config(), random_params())
    assert compress.compress(again, image) == first
    np.testing.assert_array_equal(
        compress.decompress(codec(), first), compress.decompress(again, first)
    )


def test_padding_is_that_of_the_network():
    image = image_of(1, 7)
    padded = np.pad(image, ((0, STRIDE - 1), (0, STRIDE - 7), (0, 0)), mode="reflect")
    reflected = ops.pad_to_multiple(jnp.asarray(image[None], jnp.float32), STRIDE)
    np.testing.assert_array_equal(padded, np.asarray(reflected[0]))


def test_file_of_another_model_is_refused_by_name():
    data = compress.compress(codec(), image_of(1, 7))
    other = codec(seed=2)
    sentence = (
        f"^the file was made with model {codec().model_id.hex()}, the model given is "
        f"{other.model_id.hex()}: give the model that compressed it$"
    )
    with pytest.raises(BitstreamError, match=sentence):
        compress.decompress(other, data)


def test_id_follows_the_config_and_what_decoding_uses_but_not_the_encoder():
    config, params = model_config(), random_params()
    widened = dataclasses.replace(config, dtype="bfloat16")
    assert compress.make_codec(widened, params).model_id != codec().model_id
    deaf = params | {"encoder": jax.tree.map(jnp.zeros_like, params["encoder"])}
    assert compress.make_codec(config, deaf).model_id == codec().model_id
    mute = params | {"generator": jax.tree.map(jnp.zeros_like, params["generator"])}
    assert compress.make_codec(config, mute).model_id != codec().model_id


def test_every_truncation_and_every_flipped_bit_is_refused():
    data = compress.compress(codec(), image_of(1, 1))
    damaged = [data[:end] for end in range(len(data))]
    for position in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        damaged.append(bytes(flipped))
    for file in damaged:
        with pytest.raises(BitstreamError):
            compress.decompress(codec(), file)


@pytest.mark.parametrize("seed", range(12))
def test_forged_streams_under_a_valid_checksum_give_an_image_or_a_bitstream_error(seed):
    rng = np.random.default_rng(seed)
    container = bitstream.unpack(compress.compress(codec(), image_of(64, 64)))
    z_stream, y_stream = (rng.bytes(int(rng.integers(0, 60))) for _ in range(2))
    forged = container._replace(
        z_stream=z_stream if seed % 3 else container.z_stream,
        y_stream=y_stream if seed % 2 else container.y_stream,
    )
    data = bitstream.pack(forged)
    assert zlib.crc32(data[:5] + data[9:]) == int.from_bytes(data[5:9], "little")
    try:
        decoded = compress.decompress(codec(), data)
    except BitstreamError:
        return
    assert decoded.shape == (64, 64, 3)
