"""Example images, spectra and the table of parameters that a run logs beside scalars."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from fa_hific_jax import ops
from fa_hific_jax.models import autoencoder
from fa_hific_jax.settings import Settings
from fa_hific_jax.spectra import decibels, log_spectrum, radial_power_spectrum
from fa_hific_jax.training.ema import ema_autoencoder
from fa_hific_jax.training.state import TrainState, parameters

EXAMPLES = 4
LOWEST, HIGHEST = -30.0, 70.0  # power in dB at the bottom and top of pictures of spectra
WIDTH, HEIGHT = 320, 200  # size of the pictures of radial spectra in pixels
COLORS = ("black", "red")  # of original and reconstruction there


def describe(state: TrainState) -> str:
    """Returns a table of all parameters with their shapes."""
    from clu import parameter_overview

    return parameter_overview.get_parameter_overview(parameters(state), include_stats=False)


def count(state: TrainState) -> int:
    """Returns the number of all parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(parameters(state)))


def example_images(
    state: TrainState, batch: UInt8[np.ndarray, "b h w 3"], settings: Settings
) -> dict[str, UInt8[np.ndarray, "n _ _ c"]]:
    """Returns the first images of a batch, their reconstructions, and pictures of their spectra.

    The names are "original", "reconstruction", "original_spectrum" and "reconstruction_spectrum"
    (log power), and "radial_spectrum": the original in black and the reconstruction in red, from
    frequency 0 at the left to 0.5 cycles per pixel at the right, and from -30 to 70 dB.
    """
    params = jax.tree.map(lambda leaf: leaf.addressable_data(0), ema_autoencoder(state))
    x = jnp.asarray(batch[:EXAMPLES], jnp.float32) / 255.0
    x_hat = np.asarray(_reconstruct(settings.model, params, x))
    images = {"original": batch[:EXAMPLES], "reconstruction": x_hat}
    spectra = {
        f"{name}_spectrum": np.stack([_picture(log_spectrum(image)) for image in stack])
        for name, stack in images.items()
    }
    radial = np.stack([radial_picture(pair) for pair in zip(*images.values(), strict=True)])
    return images | spectra | {"radial_spectrum": radial}


def radial_picture(images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "hp wp 3"]:
    """Draws the radial power spectra of images as lines in `COLORS` over a grid of 10 dB."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    for level in np.arange(LOWEST, HIGHEST, 10.0):
        height = _height(level)
        draw.line([(0, height), (WIDTH, height)], fill="lightgray")
    for image, color in zip(images, COLORS, strict=False):
        frequency, power = radial_power_spectrum(image, bins=64)
        points = zip(2 * WIDTH * frequency, _height(decibels(power)), strict=True)
        draw.line([(float(x), float(y)) for x, y in points], fill=color, width=2)
    return np.asarray(picture)


@functools.partial(jax.jit, static_argnums=0)
def _reconstruct(config, params, x):
    return ops.to_8_bits(autoencoder.forward(config, params, x).x_hat)


def _height(level):
    """Returns the row of a picture at which a level in dB is drawn."""
    return HEIGHT * (HIGHEST - level) / (HIGHEST - LOWEST)


def _picture(level: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 1"]:
    """Returns levels in dB as a gray picture."""
    gray = 255.0 * (level[..., None] - LOWEST) / (HIGHEST - LOWEST)
    return np.clip(gray, 0.0, 255.0).astype(np.uint8)
