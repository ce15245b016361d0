"""What TensorBoard shows of a run: scalars, example images and their spectra."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import UInt8

from fa_hific_jax import ops
from fa_hific_jax.errors import UserError
from fa_hific_jax.models import autoencoder
from fa_hific_jax.settings import Settings
from fa_hific_jax.spectra import log_spectrum
from fa_hific_jax.training.state import TrainState, parameters

EXAMPLES = 4


def metric_writer(workdir: epath.Path) -> Any:
    """clu's asynchronous TensorBoard writer for `workdir`, as a context that flushes at its end."""
    try:
        import tensorflow as tf
        from clu import metric_writers
    except ImportError as error:
        raise UserError(f"logging needs {error.name}: pip install 'fa-hific-jax[train]'") from error
    tf.config.set_visible_devices([], "GPU")  # TensorFlow would take the memory that JAX needs.
    writer = metric_writers.create_default_writer(
        workdir, just_logging=jax.process_index() > 0, collection="logs"
    )
    return metric_writers.ensure_flushes(writer)


def describe(state: TrainState) -> str:
    """Table of all parameters with their shapes."""
    from clu import parameter_overview

    return parameter_overview.get_parameter_overview(parameters(state), include_stats=False)


def count(state: TrainState) -> int:
    """Number of all parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(parameters(state)))


def example_images(
    state: TrainState, batch: UInt8[np.ndarray, "b h w 3"], settings: Settings
) -> dict[str, np.ndarray]:
    """A few images of a batch, their reconstructions as decoded, and the log spectra of both."""
    x = jnp.asarray(batch[:EXAMPLES], jnp.float32) / 255.0
    x_hat = _reconstruct(settings.model, jax.device_get(state.params["autoencoder"]), x)
    images = {"original": batch[:EXAMPLES], "reconstruction": np.asarray(x_hat)}
    spectra = {
        f"{name}_spectrum": np.stack([_picture(log_spectrum(image)) for image in stack])
        for name, stack in images.items()
    }
    return images | spectra


@functools.partial(jax.jit, static_argnums=0)
def _reconstruct(config, params, x):
    x_hat = autoencoder.apply(config, params, x).x_hat
    return ops.round_half_up(jnp.clip(x_hat, 0.0, 1.0) * 255.0).astype(jnp.uint8)


def _picture(decibels: np.ndarray) -> np.ndarray:
    """Grey uint8 picture (h, w, 1) of -30 to 70 dB."""
    return np.clip((decibels[..., None] + 30.0) * 2.55, 0.0, 255.0).astype(np.uint8)
