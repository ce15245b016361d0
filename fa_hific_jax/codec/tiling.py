"""Runs the networks over images of any size: whole, on canvases that many sizes share, or in tiles.

A tile is a canvas (codec/programs.py) of one fixed shape with a margin as wide as the networks see,
which is thrown away.
"""

import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Float32, UInt8

from fa_hific_jax.codec import programs
from fa_hific_jax.codec.programs import LATENT, WHOLE_PIXELS, Network, Shape, run, run_whole
from fa_hific_jax.errors import UserError
from fa_hific_jax.fidelity.variants import LEGACY_SIDE
from fa_hific_jax.models import STRIDE, padded_shape
from fa_hific_jax.models.autoencoder import ModelConfig
from fa_hific_jax.models.fcm import LOCAL_KINDS
from fa_hific_jax.models.folded import ENCODER_BLOCKS, FOLD, GENERATOR_BLOCKS
from fa_hific_jax.settings.model import folds

MODES = ("auto", "whole", "exact", "blend")
# Sides of the tiles: pixels of the encoder, latents of the others. Wider ones waste less on their
# margins and need more memory. Narrow images have longer tiles of as many pixels (`tile_shape`).
_ENCODER_SIDE, _HYPER_SIDE, _LATENT_SIDE, _PIXEL_SIDE = 1024, 256, 128, 64
_BLEND_MARGIN = 4  # latents

Image = UInt8[np.ndarray, "_ _ 3"]
Values = Float[np.ndarray, "_ _ _"]


class ReceptiveField(NamedTuple):
    """Reach of each part to either side, in elements of its input."""

    encoder: int  # pixels
    hyper_analysis: int  # latents, like the following
    latent_stage: int
    pixel_stage: int


class Tile(NamedTuple):
    """Positions along one axis: the network sees start to stop, first to last is kept."""

    start: int
    stop: int
    first: int
    last: int


def receptive_field(config: ModelConfig) -> ReceptiveField:
    """Returns upper bounds, from the kernels and strides of the networks and of local FCMs."""
    encoder = 3 + (1 + 2 + 4 + 8) + 16
    if folds(config.encoder_widths):
        encoder = FOLD - 1 + LATENT  # of pixels in the block of another
        for level, blocks in enumerate(ENCODER_BLOCKS):
            # The convolution that leads to a level is one of the level before.
            encoder += FOLD * 2 ** max(level - 1, 0) + FOLD * 2**level * 2 * blocks
    fcm = 3 if config.fcm_width else 0  # three 3x3 convolutions
    if folds(config.generator_widths):
        # In units of each level; the picture comes in after the last upsampling and sees less.
        levels = (1 + fcm + 2 * GENERATOR_BLOCKS[1], fcm + 2 * GENERATOR_BLOCKS[2])
    else:
        levels = (3 + fcm, fcm, 0, 0)  # 7x7
    pixel_stage = 0
    for own in levels:
        pixel_stage = math.ceil((pixel_stage + own) / 2) + 1  # upsampling sees the next input too
    return ReceptiveField(encoder, 1 + 2 + 2 * 2, 1 + 2 * config.residual_blocks, pixel_stage)


def check_size(config: ModelConfig, height: int, width: int) -> None:
    """Raises a UserError for images that a model with FCMs that are not local cannot decode."""
    shape, limit = padded_shape(height, width), None
    if not _is_local(config) and math.prod(shape) > WHOLE_PIXELS:
        limit = f"at most {WHOLE_PIXELS}, because it cannot be decoded in tiles"
    if config.fcm_width and config.fcm == "legacy" and shape != (LEGACY_SIDE, LEGACY_SIDE):
        limit = f"{LEGACY_SIDE} x {LEGACY_SIDE}"
    if limit:
        raise UserError(
            f"{width} x {height} pixels do not suit a model with model.fcm={config.fcm!r}, which "
            f"takes {limit}: cut the image, or take another model"
        )


def analyze(
    network: Network, images: Sequence[Image], mode: str = "auto", canvases: Sequence[Shape] = ()
) -> list[tuple[Values, Values]]:
    """Returns y and z of each image, before rounding, with exact tiles in all modes."""
    images = [_padded(image) for image in images]
    tiled = [_in_tiles(image.shape, 1, mode) for image in images]
    whole = [image for image, cut in zip(images, tiled, strict=True) if not cut]
    results = iter(run_whole(network, programs.analyze, whole, canvases))
    pairs = zip(images, tiled, strict=True)
    return [_analyze_tiles(network, image) if cut else next(results) for image, cut in pairs]


def generate(
    network: Network, latents: Sequence[Values], mode: str = "auto", canvases: Sequence[Shape] = ()
) -> list[Image]:
    """Returns the image of padded size for each y_hat, from exact tiles to one step of 8 bits."""
    if not _is_local(network.config):
        return run_whole(network, programs.generate, latents)
    tiled, blend = [_in_tiles(y_hat.shape, LATENT, mode) for y_hat in latents], mode == "blend"
    whole = [y_hat for y_hat, cut in zip(latents, tiled, strict=True) if not cut]
    results = iter(run_whole(network, programs.generate, whole, canvases))
    pairs = zip(latents, tiled, strict=True)
    return [_generate_tiles(network, y, blend) if cut else next(results) for y, cut in pairs]


def tiles(extent: int, side: int, margin: int, align: int) -> list[Tile]:
    """Returns tiles that cover an axis of this extent, evenly spaced at multiples of `align`.

    No tile leaves the image, so that true borders are the network's to treat. The part of a tile
    that is kept lies at least `margin` (a multiple of `align`) from every other edge of it.
    """
    spare = extent - side
    if spare <= 0:
        return [Tile(0, extent, 0, extent)]
    count = -(-spare // (side - 2 * margin))
    starts = [spare * i // count // align * align for i in range(count + 1)]
    cuts = [b + (a + side - b) // 2 // align * align for a, b in itertools.pairwise(starts)]
    return [
        Tile(start, start + side, first, last)
        for start, first, last in zip(starts, [0, *cuts], [*cuts, extent], strict=True)
    ]


def tile_shape(extents: Shape, side: int, align: int) -> Shape:
    """Returns the tiles' height and width: square, or narrower by powers of two and longer."""
    shape = [side, side]
    for narrow, long in ((0, 1), (1, 0)):
        while shape[narrow] // 2 >= extents[narrow] and shape[narrow] // 2 % align == 0:
            shape[narrow] //= 2
            shape[long] *= 2 if shape[long] < extents[long] else 1
    return shape[0], shape[1]


def _analyze_tiles(network: Network, image: Image) -> tuple[Values, Values]:
    field, down = receptive_field(network.config), STRIDE // LATENT
    margin = -(-field.encoder // LATENT) * LATENT
    y = _tiled(network, programs.encode, image, _ENCODER_SIDE, margin, (1, LATENT))
    margin = -(-field.hyper_analysis // down) * down
    return y, _tiled(network, programs.hyper_analyze, y, _HYPER_SIDE, margin, (1, down))


def _generate_tiles(network: Network, y_hat: np.ndarray, blend: bool) -> Image:
    """Returns the image of y_hat. Blending spares the first stage, which sees far, its margins."""
    field = receptive_field(network.config)
    margin = _BLEND_MARGIN if blend else field.latent_stage
    state = _tiled(network, programs.latent_stage, y_hat, _LATENT_SIDE, margin, blend=blend)
    scale = (LATENT, 1)
    return _tiled(network, programs.pixel_stage, state, _PIXEL_SIDE, field.pixel_stage, scale)


def _tiled(
    network: Network,
    function: programs.Function,
    source: Any,
    side: int,
    margin: int,
    scale: tuple[int, int] = (1, 1),
    blend: bool = False,
) -> Any:
    """Returns what the function makes of `source`, an array or tree as for `run`, tile by tile.

    Both sides of the result are those of the source times scale[0] / scale[1]. With `blend`, at a
    scale of 1, tiles are cross-faded linearly within the margin.
    """
    up, down = scale
    extents = jax.tree.leaves(source)[0].shape[:2]

    def scaled(first: int, last: int) -> slice:
        return slice(first * up // down, last * up // down)

    def empty(leaf: np.ndarray) -> np.ndarray:
        height, width = (extent * up // down for extent in extents)
        return np.zeros((height, width, leaf.shape[-1]), leaf.dtype)

    shape = tile_shape(extents, side, down)
    axes = [tiles(*sides, margin, down) for sides in zip(extents, shape, strict=True)]
    out = None
    for pair in itertools.product(*axes):
        seen = tuple(slice(tile.start, tile.stop) for tile in pair)
        part = jax.tree.map(operator.itemgetter(seen), source)
        (result,) = run(network, function, [part], shape, True)
        out = jax.tree.map(empty, result) if out is None else out
        kept = tuple(scaled(tile.first, tile.last) for tile in pair)
        own = tuple(scaled(tile.first - tile.start, tile.last - tile.start) for tile in pair)
        for whole, made in zip(jax.tree.leaves(out), jax.tree.leaves(result), strict=True):
            if blend:
                rows, columns = (_ramps(tile, margin) for tile in pair)
                whole[seen] += rows[:, None, None] * columns[:, None] * made
            else:
                whole[kept] = made[own]
    return out


def _ramps(tile: Tile, fade: int) -> Float32[np.ndarray, " n"]:
    """Returns the weight of a tile at its positions, where those of all tiles add up to 1.

    Tiles have at least six times the length of the fade, so that no three share a position.
    """
    places = np.arange(tile.start, tile.stop, dtype=np.float32) + 0.5
    weights = np.ones_like(places)
    if tile.first > tile.start:
        weights = (places - tile.first + fade) / (2 * fade)
    if tile.last < tile.stop:
        weights = np.minimum(weights, (tile.last + fade - places) / (2 * fade))
    return np.clip(weights, 0, 1)


def _is_local(config: ModelConfig) -> bool:
    return not config.fcm_width or config.fcm in LOCAL_KINDS


def _padded(image: Image) -> Image:
    edges = [(0, -side % STRIDE) for side in image.shape[:2]]
    return np.pad(image, [*edges, (0, 0)], "reflect") if any(map(any, edges)) else image


def _in_tiles(shape: Sequence[int], unit: int, mode: str) -> bool:
    if mode not in MODES:
        raise UserError(f"there is no mode {mode!r}: choose one of {', '.join(MODES)}")
    large = shape[0] * shape[1] * unit**2 > WHOLE_PIXELS
    return large if mode == "auto" else mode != "whole"
