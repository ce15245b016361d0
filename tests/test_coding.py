"""Latents to bytes and back: lossless symbols, honest sizes, and files of others refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coding_model import coding_config, coding_model, coding_params, image_of

from fa_hific_jax.codec import bitstream, coding, float_model, integer_synthesis
from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.errors import UserError
from fa_hific_jax.models import autoencoder

SIZES = [(1, 7), (130, 70)]  # height, width
# The header of docs/bitstream.md at these sizes: 22 bytes and four varints of 1 or 2 bytes.
HEADER = 22 + 4 * 2


def quantized_of(height: int, width: int) -> coding.Quantized:
    (quantized,) = coding_model().quantize([image_of(height, width)])
    return quantized


@functools.partial(jax.jit, static_argnums=0)
def forward(config, params, image):
    """z, symbols of y around its mean and the rounded rate of the float network, in one pass."""
    model = autoencoder.bind(config, params)
    out = model(image[None].astype(jnp.float32) / 255.0)
    mean, _ = model.hyperprior.synthesis(out.z_hat)
    return out.z_hat[0], jnp.round(out.y_hat - mean)[0], out.rates.rounded[0]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_symbols_rate_and_file_size_are_those_of_the_float_network_but_for_roundings(height, width):
    quantized = quantized_of(height, width)
    z, y, bpp_rounded = forward(coding_config(), coding_params(), image_of(height, width))
    np.testing.assert_array_equal(quantized.z, np.asarray(z))
    # The integer mean is some 1e-4 beside the float one, which moves few symbols, by one step.
    difference = np.abs(quantized.y - np.asarray(y))
    assert difference.max() <= 1
    assert np.mean(difference) < 1e-2
    estimated = float_model.estimated_bits(coding_config(), coding_params(), quantized)
    assert estimated == pytest.approx(float(bpp_rounded) * height * width, rel=1e-3, abs=2)
    size = len(coding_model().encode(quantized, height, width))
    assert abs(size - HEADER - estimated / 8) <= 0.01 * estimated / 8 + 16


def test_symbols_are_rounded_half_up_around_the_mean():
    entropy = coding_model().entropy
    z = np.zeros((1, 1, 4)) + 0.5
    mean, _ = integer_synthesis.parameters(entropy.synthesis, np.ones((1, 1, 4), np.int32))
    for offset, symbol in [(0.5, 1), (0.49, 0), (-0.5, 0), (-0.51, -1)]:
        quantized = coding.quantize(entropy, mean.astype(np.float64) + offset, z)
        assert np.all(quantized.z == 1) and np.all(quantized.y == symbol)


@pytest.mark.parametrize("value", [np.nan, np.inf, -3e9])
def test_latents_of_a_diverged_model_are_refused(value):
    with pytest.raises(UserError, match="latents that are not finite or too large to be coded"):
        coding.to_symbols(np.array([0.0, value]))


def test_zeros_that_fill_up_a_stream_change_nothing(monkeypatch):
    model, quantized = coding_model(), quantized_of(130, 70)
    expected = coding.decode(model.entropy, bitstream.unpack(model.encode(quantized, 130, 70)))
    monkeypatch.setattr(coding, "FREE_PIXELS", 0)
    monkeypatch.setattr(coding, "PIXELS_PER_BYTE", 16)
    container = bitstream.unpack(model.encode(quantized, 130, 70))
    assert container.y_stream.endswith(b"\0\0")
    np.testing.assert_array_equal(coding.decode(model.entropy, container), expected)
    with pytest.raises(BitstreamError):
        longer = container._replace(y_stream=container.y_stream + bytes(4))
        coding.decode(model.entropy, longer)
    with pytest.raises(BitstreamError, match="bytes cannot hold an image of 70 x 130 pixels"):
        coding.check_claims(container._replace(y_stream=container.y_stream[:-1]))
