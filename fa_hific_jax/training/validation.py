"""Validation while a model trains: quality, rate and loss on crops it does not train on."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.data.sources import open_source
from fa_hific_jax.metrics import psnr
from fa_hific_jax.models import autoencoder
from fa_hific_jax.ops import to_8_bits
from fa_hific_jax.settings import Settings
from fa_hific_jax.training.ema import ema_autoencoder
from fa_hific_jax.training.state import TrainState
from fa_hific_jax.training.step import train_step

LIMIT = 32  # number of images at most


def validator(settings: Settings, lpips_params: Any) -> Callable[[TrainState], dict[str, float]]:
    """Returns a function that computes validation metrics of a state.

    It averages over the central crops, `data.crop` pixels wide and high, of the first `LIMIT`
    images of `data.evaluation`:
      eval/psnr  PSNR in dB of the decoded 8-bit crops
      eval/bpp   bits per pixel, estimated from the rounded latents
      eval/loss  training loss, with its noise, of a step with one crop as the batch

    Each process computes all of it on one device and gets the same numbers. Images that are missing
    or cannot be read raise a UserError.
    """
    source, side = open_source(settings.data.evaluation), settings.data.crop
    crops = [central_crop(source[index], side)[None] for index in range(min(LIMIT, len(source)))]
    one = dataclasses.replace(settings.train, batch_size=1, accumulate=1)
    alone = dataclasses.replace(settings, train=one)
    key = jax.random.key(settings.train.seed)

    @jax.jit
    def measure(state, images, quality, lpips_params):
        x = images.astype(jnp.float32) / 255.0
        params = ema_autoencoder(state)
        outputs = autoencoder.forward(settings.model, params, x, None, quality)
        _, metrics = train_step(state, images, key, lpips_params, settings=alone)
        return to_8_bits(outputs.x_hat)[0], outputs.rates.rounded[0], metrics["loss"]

    def validate(state: TrainState) -> dict[str, float]:
        here = jax.tree.map(lambda leaf: leaf.addressable_data(0), (state, lpips_params))
        rows = []
        # A model with gains is validated at qualities from 0 to 1, one for each image.
        for crop, quality in zip(crops, np.linspace(0.0, 1.0, len(crops)), strict=True):
            chosen = np.asarray([quality], np.float32)
            decoded, bpp, loss = jax.device_get(measure(here[0], crop, chosen, here[1]))
            rows.append((psnr(crop[0], decoded), bpp, loss))
        names = ("eval/psnr", "eval/bpp", "eval/loss")
        return dict(zip(names, np.mean(np.asarray(rows, np.float64), axis=0).tolist(), strict=True))

    return validate


def central_crop(image: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Returns the central crop of an image, which is mirrored at its edges where it is smaller."""
    short = [max(side - length, 0) for length in image.shape[:2]]
    image = np.pad(image, [(n // 2, n - n // 2) for n in short] + [(0, 0)], mode="symmetric")
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]
