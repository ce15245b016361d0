"""Weights behind the reference numbers, as our parameter trees, for networks of the paper's size.

The reference networks are in PyTorch. Their weights are not stored: each follows from its dotted
PyTorch name by a seed rule. Names and layouts are those by which `fa-hific import-torch` looks for
parameters, so the reference numbers check these too.
"""

import functools
import hashlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fa_hific_jax.convert.pytorch_layout import (
    CONVOLUTION,
    RIGHT_VECTOR,
    autoencoder_sources,
    discriminator_sources,
    map_sources,
)
from fa_hific_jax.models.autoencoder import ModelConfig
from fa_hific_jax.models.discriminator import DiscriminatorConfig

WIDTHS = (60, 120, 240, 480, 960)
LATENT_CHANNELS = 220
HYPER_CHANNELS = 320
DISCRIMINATOR_WIDTHS = (64, 128, 256, 512)
TRANSPOSED = r"Generator\.upconv_block\d\.0\.weight|Hyperprior\.synthesis_.*\.weight"

Tree = dict[str, Any]


def paper(**overrides) -> ModelConfig:
    """The paper's sizes, without FCM."""
    sizes = {
        "encoder_widths": WIDTHS,
        "generator_widths": WIDTHS[::-1],
        "latent_channels": LATENT_CHANNELS,
        "hyper_channels": HYPER_CHANNELS,
        "residual_blocks": 9,
        "fcm_width": 0,
        "variant": "pytorch",
    }
    return ModelConfig(**sizes | overrides)


def nhwc(array: np.ndarray, dtype=None) -> jax.Array:
    """A reference's (batch, channels, height, width) array in our layout."""
    return jnp.asarray(array.transpose(0, 2, 3, 1), dtype)


def nchw(array) -> np.ndarray:
    """An array of ours in the reference's layout."""
    return np.moveaxis(np.asarray(array), -1, 1)


def statistics(array) -> list[float]:
    """What the references keep of an array: mean, deviation, extrema, sums of |x| and x^2."""
    x = np.asarray(array, np.float64)
    return [x.mean(), x.std(), x.min(), x.max(), np.abs(x).sum(), np.square(x).sum()]


def relative_error(found, expected) -> float:
    """The largest difference, as a share of the largest expected value."""
    return np.max(np.abs(np.asarray(found, np.float64) - expected)) / np.max(np.abs(expected))


def _generator(name: str, project: str) -> np.random.Generator:
    seed = int.from_bytes(hashlib.sha256(f"{project}:{name}".encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed))


def draw(name: str, shape: tuple[int, ...], project: str = "fahific") -> np.ndarray:
    """The standard normal numbers that belong to a name."""
    return _generator(name, project).standard_normal(shape, dtype=np.float32)


def uniform(name: str, shape: tuple[int, ...], project: str = "fahific") -> np.ndarray:
    """The numbers in [0, 1) of an input that is not stored."""
    return _generator(name, project).random(shape, dtype=np.float32)


def gain(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.float32(1) + np.float32(0.1) * draw(name, shape)


def offset(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.float32(0.1) * draw(name, shape)


def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The reference's parameter of this name and shape."""
    kind = name.rpartition(".")[2]
    if kind == "sigma":
        return np.float32([3.0])
    if kind.startswith("H_"):
        start = np.float32(np.log(np.expm1(1 / 10**0.25 / shape[1])))
        return start + offset(name, shape)
    if kind == "gamma" or (kind == "weight" and len(shape) == 2):
        return gain(name, shape)
    if kind[:2] in ("a_", "b_") or kind == "beta" or (kind == "bias" and len(shape) == 2):
        return offset(name, shape)
    drawn = draw(name, shape)
    if kind == "bias":
        return drawn * np.float32(0.01)
    if kind in ("weight_u", "weight_v"):
        return drawn / max(np.linalg.norm(drawn), np.float32(1e-12))
    fan_in = shape[0 if re.fullmatch(TRANSPOSED, name) else 1] * shape[2] * shape[3]
    return drawn * np.float32(np.sqrt(2 / fan_in))


@functools.cache
def _sources(residual_blocks: int) -> Tree:
    return autoencoder_sources(paper(residual_blocks=residual_blocks))


def _filled(sources: Tree) -> Tree:
    return map_sources(lambda source: source.layout.ours(value(source.key, source.shape)), sources)


def encoder() -> Tree:
    return _filled(_sources(9)["encoder"])


def generator(residual_blocks: int) -> Tree:
    return _filled(_sources(residual_blocks)["generator"])


def hyperprior() -> Tree:
    return _filled(_sources(9)["hyperprior"])


def discriminator() -> Tree:
    config = DiscriminatorConfig(widths=DISCRIMINATOR_WIDTHS, context_channels=12)
    return _filled(discriminator_sources(config, paper())["params"])


def convolution(name: str, inputs: int, outputs: int, kernel: int) -> Tree:
    """Kernel and bias of a Conv2d."""
    weight = value(f"{name}.weight", (outputs, inputs, kernel, kernel))
    return {"kernel": CONVOLUTION.ours(weight), "bias": value(f"{name}.bias", (outputs,))}


def right_vector(v: np.ndarray) -> np.ndarray:
    """Spectral norm's v of a 4x4 kernel: the reference counts (in, h, w), we (h, w, in)."""
    return RIGHT_VECTOR.ours(v)
