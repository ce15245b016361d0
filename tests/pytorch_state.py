"""State dicts of the PyTorch HiFiC and of the FA-HiFiC authors' fork."""

from pathlib import Path

import numpy as np
import reference_weights
import torch_files
from reference_weights import DISCRIMINATOR_WIDTHS
from tiny_settings import tiny_settings

from fa_hific_jax.convert.pytorch_layout import (
    autoencoder_sources,
    discriminator_sources,
    map_sources,
)
from fa_hific_jax.models.discriminator import DiscriminatorConfig

TINY = dict(
    model__input_range="symmetric",
    model__likelihood="logistic",
    model__residual_blocks=1,
    model__fcm_width=0,
    model__hyper_rounding="noise",
    loss__dsl=0.0,
)
ARGS = {
    "normalize_input_image": True,
    "likelihood_type": "logistic",
    "n_residual_blocks": 1,
    "regime": "med",
    "use_latent_mixture_model": False,
    "sample_noise": False,
    "lambda_schedule": {"vals": [2.0, 1.0], "steps": [50000]},
    "image_dims": (3, 256, 256),
}

State = dict[str, np.ndarray]


Shapes = dict[str, tuple[int, ...]]


def shapes(model, discriminator=None) -> Shapes:
    """Names and shapes by which we look for the parameters of a model."""
    trees, found = [autoencoder_sources(model)], {}
    if discriminator:
        trees.append(discriminator_sources(discriminator, model))
    map_sources(lambda source: found.update({source.key: source.shape}), trees)
    return found


def hific_shapes() -> Shapes:
    """Every entry that a training of the port saves, with the discriminator."""
    discriminator = DiscriminatorConfig(widths=DISCRIMINATOR_WIDTHS, context_channels=12)
    return shapes(reference_weights.paper(), discriminator)


def tiny_state(**overrides) -> State:
    """A state dict of the port, of the size of `tiny_settings(**TINY)`, with a discriminator."""
    settings, rng = tiny_settings(**TINY | overrides), np.random.default_rng(0)
    found = shapes(settings.model, settings.discriminator)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in found.items()}


def tiny_checkpoint(path: Path, state: State | None = None, args=ARGS) -> Path:
    """A file of the port with this state and, unless None, these arguments."""
    content = {"model_state_dict": tiny_state() if state is None else state, "steps": 70}
    content |= {"epoch": 2, "compression_optimizer_state_dict": {"state": {}}}
    return torch_files.save(path, content if args is None else content | {"args": args})
