"""Weights behind the reference numbers, as our parameter trees.

The reference networks are in PyTorch. Their weights are not stored: each follows from its dotted
PyTorch name by a seed rule. Layouts are converted here, for networks of the paper's size: kernels
of convolutions (out, in, h, w) become (h, w, in, out), those of transposed convolutions
(in, out, h, w) are flipped in both spatial axes and become (h, w, in, out).
"""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

WIDTHS = (60, 120, 240, 480, 960)
LATENT_CHANNELS = 220
HYPER_CHANNELS = 320
DISCRIMINATOR_WIDTHS = (64, 128, 256, 512)
DENSITY_FILTERS = (1, 3, 3, 3, 1)

Tree = dict[str, Any]


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


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The standard normal numbers that belong to a name."""
    seed = int.from_bytes(hashlib.sha256(f"fahific:{name}".encode()).digest()[:8], "little")
    generator = np.random.Generator(np.random.PCG64(seed))
    return generator.standard_normal(shape, dtype=np.float32)


def convolution(
    name: str, inputs: int, outputs: int, kernel: int, weight_name: str = "weight"
) -> Tree:
    """Kernel and bias of a Conv2d."""
    weight = _he(f"{name}.{weight_name}", (outputs, inputs, kernel, kernel), inputs)
    return {"kernel": weight.transpose(2, 3, 1, 0), "bias": _bias(name, outputs)}


def transposed(name: str, inputs: int, outputs: int, kernel: int) -> Tree:
    """Kernel and bias of a ConvTranspose2d."""
    weight = _he(f"{name}.weight", (inputs, outputs, kernel, kernel), inputs)
    return {
        "kernel": weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1),
        "bias": _bias(name, outputs),
    }


def norm(name: str, channels: int) -> Tree:
    """Gain and offset of a ChannelNorm."""
    return {
        "gamma": gain(f"{name}.gamma", (1, channels, 1, 1)).ravel(),
        "beta": offset(f"{name}.beta", (1, channels, 1, 1)).ravel(),
    }


def gain(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.float32(1) + np.float32(0.1) * draw(name, shape)


def offset(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.float32(0.1) * draw(name, shape)


def encoder() -> Tree:
    tree = {"conv0": _wrapped("Encoder.conv_block1.1", 3, WIDTHS[0], 7)}
    for level in range(1, 5):
        name = f"Encoder.conv_block{level + 1}.1"
        tree[f"conv{level}"] = _wrapped(name, WIDTHS[level - 1], WIDTHS[level], 3)
    for level, width in enumerate(WIDTHS):
        tree[f"norm{level}"] = norm(f"Encoder.conv_block{level + 1}.2", width)
    tree["conv_out"] = _wrapped("Encoder.conv_block_out.1", WIDTHS[-1], LATENT_CHANNELS, 3)
    return tree


def generator(residual_blocks: int) -> Tree:
    head = WIDTHS[-1]
    tree = {
        "norm_in": norm("Generator.conv_block_init.0", LATENT_CHANNELS),
        "conv_head": _wrapped("Generator.conv_block_init.2", LATENT_CHANNELS, head, 3),
        "norm_head": norm("Generator.conv_block_init.3", head),
        "conv_out": _wrapped("Generator.conv_block_out.1", WIDTHS[0], 3, 7),
    }
    for block in range(residual_blocks):
        name = f"Generator.resblock_{block}"
        tree[f"block{block}"] = {
            "conv1": _wrapped(f"{name}.conv1", head, head, 3),
            "norm1": norm(f"{name}.norm1", head),
            "conv2": _wrapped(f"{name}.conv2", head, head, 3),
            "norm2": norm(f"{name}.norm2", head),
        }
    for level in range(1, 5):
        name = f"Generator.upconv_block{5 - level}"
        tree[f"up{level}"] = transposed(f"{name}.0", WIDTHS[level], WIDTHS[level - 1], 3)
        tree[f"norm{level}"] = norm(f"{name}.1", WIDTHS[level - 1])
    return tree


def hyper_analysis() -> Tree:
    name, n = "Hyperprior.analysis_net", HYPER_CHANNELS
    return {
        "conv0": _wrapped(f"{name}.conv1", LATENT_CHANNELS, n, 3),
        "conv1": _wrapped(f"{name}.conv2", n, n, 5),
        "conv2": _wrapped(f"{name}.conv3", n, n, 5),
    }


def hyper_synthesis(which: str) -> Tree:
    """`which`: "mu" or "std"."""
    name, n = f"Hyperprior.synthesis_{which}", HYPER_CHANNELS
    return {
        "up0": transposed(f"{name}.conv1", n, n, 5),
        "up1": transposed(f"{name}.conv2", n, n, 5),
        "conv2": {"Conv_0": transposed(f"{name}.conv3", n, LATENT_CHANNELS, 3)},
    }


def factorized_prior() -> Tree:
    name, tree = "Hyperprior.hyperlatent_likelihood", {}
    for k, (inputs, outputs) in enumerate(
        zip(DENSITY_FILTERS[:-1], DENSITY_FILTERS[1:], strict=True)
    ):
        start = np.float32(np.log(np.expm1(1 / 10**0.25 / outputs)))
        tree[f"h{k}"] = start + offset(f"{name}.H_{k}", (HYPER_CHANNELS, outputs, inputs))
        tree[f"a{k}"] = offset(f"{name}.a_{k}", (HYPER_CHANNELS, outputs, 1))
        tree[f"b{k}"] = offset(f"{name}.b_{k}", (HYPER_CHANNELS, outputs, 1))
    return tree


def hyperprior() -> Tree:
    return {
        "analysis": hyper_analysis(),
        "synthesis_mean": hyper_synthesis("mu"),
        "synthesis_scale": hyper_synthesis("std"),
        "prior": factorized_prior(),
    }


def discriminator() -> Tree:
    tree = {
        "context": _wrapped("Discriminator.context_conv", LATENT_CHANNELS, 12, 3),
        "conv_out": _wrapped("Discriminator.conv_out", DISCRIMINATOR_WIDTHS[-1], 1, 1),
    }
    inputs = 15
    for layer, width in enumerate(DISCRIMINATOR_WIDTHS):
        name = f"Discriminator.conv{layer + 1}"
        tree[f"conv{layer}"] = convolution(name, inputs, width, 4, weight_name="weight_orig")
        inputs = width
    return tree


def right_vector(v: np.ndarray) -> np.ndarray:
    """Spectral norm's v of a 4x4 kernel: the reference counts (in, h, w), we (h, w, in)."""
    return v.reshape(-1, 4, 4).transpose(1, 2, 0).ravel()


def _wrapped(name: str, inputs: int, outputs: int, kernel: int) -> Tree:
    return {"Conv_0": convolution(name, inputs, outputs, kernel)}


def _he(name: str, shape: tuple[int, ...], inputs: int) -> np.ndarray:
    return draw(name, shape) * np.float32(np.sqrt(2 / (inputs * shape[2] * shape[3])))


def _bias(name: str, outputs: int) -> np.ndarray:
    return draw(f"{name}.bias", (outputs,)) * np.float32(0.01)
