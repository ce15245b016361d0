"""A small model whose symbols spread, and images to code with it."""

import dataclasses
import functools

import jax
import numpy as np
from tiny_settings import tiny_settings

from fa_hific_jax.codec.model import Model, from_params
from fa_hific_jax.models import autoencoder
from fa_hific_jax.models.autoencoder import ModelConfig

# Without jit each of hundreds of operations would be compiled alone.
init_parameters = jax.jit(autoencoder.init_parameters, static_argnums=0)
forward = jax.jit(autoencoder.forward, static_argnums=0)


def coding_config(**overrides) -> ModelConfig:
    """That of `tiny_settings`; overrides are fields of it."""
    fields = {f"model__{key}": value for key, value in overrides.items()}
    return tiny_settings(loss__dsl=0.0, **fields).model  # which would require FCMs


@functools.cache
def moved(config: ModelConfig, spread: float):
    """Parameters of which each is away from where it begins."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: leaf + spread * rng.normal(size=leaf.shape).astype(np.float32),
        init_parameters(config, jax.random.key(0)),
    )


@functools.cache
def coding_params(seed: int = 1, **overrides):
    """Parameters under which symbols spread, mostly within what their scales predict."""
    params = init_parameters(coding_config(**overrides), jax.random.key(seed))
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
def coding_model(seed: int = 1, **overrides) -> Model:
    """A model of `coding_params`."""
    return from_params(coding_config(**overrides), coding_params(seed, **overrides))


@functools.cache
def many_rates_model() -> Model:
    """The same with a choice of rates: gains from a half to two."""
    config = dataclasses.replace(coding_config(), qualities=2)
    log_gain = np.log(np.repeat([[0.5], [2.0]], config.latent_channels, axis=1)).astype(np.float32)
    gains = {"log_gain": log_gain, "log_inverse": -log_gain}
    return from_params(config, coding_params() | {"gains": gains})


def image_of(height: int, width: int) -> np.ndarray:
    """A wave under noise, so that neighboring pixels have something in common."""
    y, x = np.mgrid[:height, :width]
    wave = 128 + 90 * np.sin(x / 9.0 + y / 5.0)
    noise = np.random.default_rng(height * 1000 + width).normal(0, 20, (height, width, 3))
    return np.clip(wave[..., None] + noise, 0, 255).astype(np.uint8)
