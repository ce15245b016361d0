"""Writes the networks of a model as ONNX, for decoders and encoders that do not use JAX.

The folder holds, with docs/onnx.md as the manual:

decoder.onnx        y_hat, and as the model has them quality and detail, to an 8-bit image
encoder.onnx        an 8-bit image, and as the model has it quality, to y and z before rounding
tables.safetensors  the integers of entropy coding, as in the folder of the model
"""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.codec import programs, safetensors_file
from fa_hific_jax.codec.arrays import entropy_arrays
from fa_hific_jax.codec.model import Model
from fa_hific_jax.convert.onnx_graph import onnx_model
from fa_hific_jax.errors import UserError
from fa_hific_jax.models import STRIDE
from fa_hific_jax.models.autoencoder import bind
from fa_hific_jax.models.fcm import LOCAL_KINDS
from fa_hific_jax.writing import write_folder


def save_onnx(model: Model, folder: Path) -> None:
    """Writes encoder and decoder of the model, and its coding tables, as a folder.

    Raises a UserError if the package onnx is not installed, the folder exists and is not empty, or
    the model has FCMs that see the whole image.
    """
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder}: exists already: choose another name, or remove it first")
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise UserError(
            "the export to ONNX needs the package onnx: pip install 'fa-hific-jax[onnx]'"
        ) from error
    if model.config.fcm_width and model.config.fcm not in LOCAL_KINDS:
        raise UserError(
            f"a model with model.fcm={model.config.fcm!r} cannot be exported to ONNX, because its "
            "FCMs depend on the image size: use one with model.fcm='hific', or without FCMs"
        )
    config, params, metadata = model.config, model.params, {"model_id": model.model_id.hex()}
    net = bind(config, params, "float32")

    def encode(image, quality=None):
        y = programs.encode(net, image, None)
        if quality is not None:
            y = y * _gain(params["gains"]["log_gain"], quality)
        return {"y": y, "z": net.hyperprior.analysis(y)}

    def decode(y_hat, quality=None, detail=None):
        if quality is not None:
            y_hat = y_hat * _gain(params["gains"]["log_inverse"], quality)
        image, _ = net.pixel_stage(net.latent_stage(y_hat), detail=detail)
        return {"image": ops.to_8_bits(image)}

    number = jax.ShapeDtypeStruct((1,), jnp.float32)  # for each image
    quality = {"quality": number} if config.qualities else {}
    detail = {"detail": number} if config.fcm_width else {}
    side = STRIDE // programs.LATENT
    image = {"image": jax.ShapeDtypeStruct((1, STRIDE, STRIDE, 3), jnp.uint8)}
    y_hat = {"y_hat": jax.ShapeDtypeStruct((1, side, side, config.latent_channels), jnp.float32)}
    files = {
        "encoder.onnx": onnx_model(encode, image | quality, metadata),
        "decoder.onnx": onnx_model(decode, y_hat | quality | detail, metadata),
        "tables.safetensors": safetensors_file.to_bytes(entropy_arrays(model.entropy)),
    }
    write_folder(folder, files)


def _gain(
    table: Float[Array, "qualities c"], quality: Float[Array, " 1"]
) -> Float[Array, "1 1 1 c"]:
    """Returns the factors of `models.gains.Gains`, without indexing by the quality."""
    place = jnp.clip(quality, 0.0, 1.0)[:, None] * (len(table) - 1)
    rows = jnp.arange(len(table), dtype=jnp.float32)[None]
    shares = jnp.maximum(1.0 - jnp.abs(place - rows), 0.0)
    return jnp.exp(shares @ table)[:, None, None]
