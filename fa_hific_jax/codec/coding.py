"""Codes latents as symbols and symbols as the bytes of a file, and back.

`codec/tiling.py` runs the networks. This module uses only integers and float64 on the host, so the
same latents give the same file, and the same file the same latents, on every machine. It loads
neither JAX nor a network, so that decoders can do without (docs/onnx.md).
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

from fa_hific_jax.codec import bitstream, coders, integer_synthesis
from fa_hific_jax.codec.bitstream import BitstreamError, Container
from fa_hific_jax.entropy.tables import Tables
from fa_hific_jax.errors import UserError
from fa_hific_jax.models import STRIDE, padded_shape

# The cost of decoding depends on the image size in the header. A few forged bytes must not cost
# minutes and gigabytes, so the y stream must have one byte for every PIXELS_PER_BYTE padded pixels
# beyond FREE_PIXELS. The encoder appends zero bytes to a shorter stream: 0.002 bits per pixel.
FREE_PIXELS = 2**20
PIXELS_PER_BYTE = 2**12

_ROWS = 64  # rows of latents that are quantized at once, to bound the memory in float64


class EntropyModel(NamedTuple):
    """All that determines how symbols are coded: integers, the same in encoder and decoder."""

    z_tables: Tables
    y_tables: Tables
    synthesis: integer_synthesis.IntegerSynthesis


class Quantized(NamedTuple):
    """The symbols of one image, and the row of `y_tables` for each symbol of y."""

    z: Int32[np.ndarray, "hz wz cz"]
    y: Int32[np.ndarray, "hy wy cy"]  # round(y - mean)
    rows: UInt8[np.ndarray, "hy wy cy"]


def quantize(
    entropy: EntropyModel, y: Float[np.ndarray, "hy wy cy"], z: Float[np.ndarray, "hz wz cz"]
) -> Quantized:
    """Returns the symbols `to_symbols` of z and of y - mean, computed in float64."""
    z_symbols = to_symbols(z)
    mean, rows = integer_synthesis.parameters(entropy.synthesis, z_symbols)
    symbols = np.empty(y.shape, np.int32)
    for start in range(0, len(y), _ROWS):
        strip = slice(start, start + _ROWS)
        symbols[strip] = to_symbols(y[strip].astype(np.float64) - mean[strip])
    return Quantized(z_symbols, symbols, rows)


def to_symbols(values: Float[np.ndarray, "*s"]) -> Int32[np.ndarray, "*s"]:
    """Returns floor(values + 1/2); raises a UserError if one is not finite or too large to code."""
    rounded = np.floor(values + 0.5)
    if not np.all(np.abs(rounded) < 2.0**31):
        why = "the network gives latents that are not finite or too large to be coded"
        raise UserError(f"{why}: take a checkpoint from before the training diverged")
    return rounded.astype(np.int32)


def encode(entropy: EntropyModel, quantized: Quantized, container: Container) -> bytes:
    """Returns the file of `container` with the symbols as its streams and checksum."""
    z, y, rows = quantized
    y_stream = coders.encode(y.ravel(), rows.ravel(), entropy.y_tables, container.coder)
    filled = container._replace(
        z_stream=coders.encode(z.ravel(), _channels(z.shape), entropy.z_tables, container.coder),
        y_stream=y_stream.ljust(_least_bytes(container), b"\0"),
        symbols_crc=bitstream.symbols_crc(z, y),
    )
    return bitstream.pack(filled)


def check_claims(container: Container) -> None:
    """Raises a BitstreamError for an image size that is too large for the file."""
    if len(container.y_stream) < _least_bytes(container):
        size = f"{container.width} x {container.height} pixels"
        why = f"{len(container.y_stream)} bytes cannot hold an image of {size}"
        raise BitstreamError(f"{why}, the file is damaged: fetch it again")


def decode(entropy: EntropyModel, container: Container) -> Float32[np.ndarray, "hy wy cy"]:
    """Returns y_hat, the decoded latents of a file of this model; raises like `decode_symbols`."""
    symbols, mean = decode_symbols(entropy, container)
    mean += symbols.y
    return mean


def decode_symbols(
    entropy: EntropyModel, container: Container
) -> tuple[Quantized, Float32[np.ndarray, "hy wy cy"]]:
    """Returns the symbols that were coded, and the mean of y.

    Raises a BitstreamError if the streams are damaged, or do not give the symbols that were coded.
    """
    height, width = padded_shape(container.height, container.width)
    shape = (height // STRIDE, width // STRIDE, len(entropy.z_tables.length))
    z = coders.decode(container.z_stream, _channels(shape), entropy.z_tables, container.coder)
    z = z.reshape(shape)
    mean, rows = integer_synthesis.parameters(entropy.synthesis, z)
    y_stream = container.y_stream
    if len(y_stream) == _least_bytes(container):
        y_stream = y_stream.rstrip(b"\0")
    y = coders.decode(y_stream, rows.ravel(), entropy.y_tables, container.coder)
    y = y.reshape(mean.shape)
    if container.symbols_crc != bitstream.symbols_crc(z, y):
        # This device computes other table rows than that of the encoder. The image would be noise.
        raise BitstreamError(
            "the symbols decoded here are not those that were coded, because this device computes "
            "the model differently: decode on the kind of device that compressed the image"
        )
    return Quantized(z, y, rows), mean


def _channels(shape: tuple[int, int, int]) -> np.ndarray:
    """Returns the table row of each symbol of z, which is its channel."""
    return np.tile(np.arange(shape[2], dtype=np.uint16), shape[0] * shape[1])


def _least_bytes(container: Container) -> int:
    """Returns the smallest number of bytes that the y stream of an image may have."""
    pixels = math.prod(padded_shape(container.height, container.width))
    return max(0, -((FREE_PIXELS - pixels) // PIXELS_PER_BYTE))
