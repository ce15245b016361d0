"""The networks over images of any size: whole, on canvases that many sizes share, or in tiles.

A tile is a canvas (codec/programs.py) of one fixed shape that is laid over the image again and
again, with a margin as wide as the networks see, which is thrown away.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8

from fa_hific_jax.codec.programs import (
    LATENT,
    WHOLE_PIXELS,
    Network,
    Shape,
    canvas_of,
    padded_shape,
    run,
    run_whole,
    sizes_of,
)
from fa_hific_jax.errors import UserError
from fa_hific_jax.models.autoencoder import STRIDE, ModelConfig, trunk_channels
from fa_hific_jax.models.fcm import LEGACY_SIDE, LOCAL_KINDS

MODES = ("auto", "whole", "exact", "blend")
# Sides of the tiles: pixels of the encoder, latents of the others. Wider ones waste less on their
# margins and need more memory. Of narrow images tiles of as many pixels are longer (`tile_shape`).
_ENCODER_SIDE, _HYPER_SIDE, _TRUNK_SIDE, _ENLARGE_SIDE = 1024, 256, 128, 64
_BLEND_MARGIN = 4  # latents

Image = UInt8[np.ndarray, "_ _ 3"]
Values = Float[np.ndarray, "_ _ _"]


class ReceptiveField(NamedTuple):
    """How far each part sees, to either side, in units of what it is given."""

    encoder: int  # pixels
    hyper_analysis: int  # latents
    trunk: int  # latents
    enlarge: int  # latents


class Tile(NamedTuple):
    """Positions along one axis: the network sees start to stop, first to last is kept."""

    start: int
    stop: int
    first: int
    last: int


def receptive_field(config: ModelConfig) -> ReceptiveField:
    """Upper bounds, from the kernels and strides of the networks; of FCMs that are local."""
    fcm = 3 if config.fcm_width else 0  # three 3x3 convolutions
    enlarge = 3  # 7x7
    for level in (1, 2, 3, 4):
        enlarge += fcm if level <= 2 else 0
        enlarge = math.ceil(enlarge / 2) + 1  # an upsampling's output sees the next input too
    return ReceptiveField(
        encoder=3 + (1 + 2 + 4 + 8) + 16,
        hyper_analysis=1 + 2 + 2 * 2,
        trunk=1 + 2 * config.residual_blocks,
        enlarge=enlarge,
    )


def check_size(config: ModelConfig, height: int, width: int) -> None:
    """Raises a UserError for images that a model with FCMs that are not local cannot decode."""
    if _is_local(config):
        return
    shape = padded_shape(height, width)
    if config.fcm == "legacy" and shape != (LEGACY_SIDE, LEGACY_SIDE):
        raise UserError(
            f"an image of {width} x {height} pixels does not suit a model with model.fcm='legacy', "
            f"which takes {LEGACY_SIDE} x {LEGACY_SIDE}: cut the image, or take another model"
        )
    if shape[0] * shape[1] > WHOLE_PIXELS:
        raise UserError(
            f"an image of {width} x {height} pixels is too large for a model with "
            f"model.fcm={config.fcm!r}, which cannot be decoded in tiles: cut the image into "
            f"parts of at most {WHOLE_PIXELS} pixels, or take another model"
        )


def analyse(
    network: Network, images: Sequence[Image], mode: str = "auto", canvases: Sequence[Shape] = ()
) -> list[tuple[Values, Values]]:
    """y and z of each image, before rounding.

    Tiles are always exact here: with the dtype "float64" all modes and canvases give the same
    numbers, but for some 1e-13. Each image takes the smallest of the canvases (pixels) that holds
    it, or else the program of its own shape.
    """
    padded = [_pad(image) for image in images]
    tiled = [_in_tiles(image.shape, 1, mode) for image in padded]
    whole = run_whole(network, "analyse", _unless(tiled, padded), canvases)
    results = []
    for image, cut, both in zip(padded, tiled, whole, strict=True):
        if cut:
            results.append(_analyse_tiles(network, image))
        else:
            y, z = both
            results.append((_crop(y, image.shape, LATENT), _crop(z, image.shape, STRIDE)))
    return results


def generate(
    network: Network,
    latents: Sequence[Float32[np.ndarray, "_ _ cy"]],
    mode: str = "auto",
    canvases: Sequence[Shape] = (),
) -> list[Image]:
    """The image of padded size for each y_hat; exact tiles give it to one step of 8 bits."""
    local = _is_local(network.config)
    tiled = [local and _in_tiles(y_hat.shape, LATENT, mode) for y_hat in latents]
    whole = run_whole(network, "generate", _unless(tiled, latents), canvases if local else ())
    return [
        _generate_tiles(network, y_hat, mode == "blend")
        if cut
        else image[: LATENT * y_hat.shape[0], : LATENT * y_hat.shape[1]]
        for y_hat, cut, image in zip(latents, tiled, whole, strict=True)
    ]


def tiles(extent: int, side: int, margin: int, align: int) -> list[Tile]:
    """Tiles that cover an axis of this extent, evenly spaced at multiples of `align`.

    No tile leaves the image, so that true borders are the network's to treat; what is kept of a
    tile lies at least `margin` (a multiple of `align`) from every other edge of it. An axis shorter
    than a tile has one tile.
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
    """Height and width of the tiles for an array: square, or narrower by powers of two and longer.

    A line of pixels would fill a sixteenth of a square tile. A few shapes serve all arrays, each
    of which is a program.
    """
    shape = [side, side]
    for narrow, long in ((0, 1), (1, 0)):
        while shape[narrow] // 2 >= extents[narrow] and shape[narrow] // 2 % align == 0:
            shape[narrow] //= 2
            shape[long] *= 2 if shape[long] < extents[long] else 1
    return shape[0], shape[1]


def _analyse_tiles(network: Network, image: Image) -> tuple[Values, Values]:
    height, width, _ = image.shape
    config, field = network.config, receptive_field(network.config)
    dtype = np.float64 if network.dtype == "float64" else np.float32
    y = np.empty((height // LATENT, width // LATENT, config.latent_channels), dtype)
    z = np.empty((height // STRIDE, width // STRIDE, config.hyper_channels), dtype)
    margin = _multiple(field.encoder, LATENT)
    _run_tiles(network, "encode", image, y, _ENCODER_SIDE, margin)
    margin = _multiple(field.hyper_analysis, STRIDE // LATENT)
    _run_tiles(network, "hyper_analyse", y, z, _HYPER_SIDE, margin)
    return y, z


def _generate_tiles(network: Network, y_hat: np.ndarray, blend: bool) -> Image:
    """The residual blocks at the latents' size, which see far, then what enlarges, which does not.

    Blending spares the first their margins, almost: features are cross-faded, not pixels.
    """
    height, width, _ = y_hat.shape
    field = receptive_field(network.config)
    features = np.zeros((height, width, trunk_channels(network.config)), np.float32)
    if blend:
        _blend_tiles(network, "trunk", y_hat, features, _TRUNK_SIDE, _BLEND_MARGIN)
    else:
        _run_tiles(network, "trunk", y_hat, features, _TRUNK_SIDE, field.trunk)
    image = np.empty((LATENT * height, LATENT * width, 3), np.uint8)
    _run_tiles(network, "enlarge", features, image, _ENLARGE_SIDE, field.enlarge)
    return image


def _run_tiles(
    network: Network,
    method: str,
    source: np.ndarray,
    out: np.ndarray,
    side: int,
    margin: int,
) -> None:
    """Fills `out`, which may be larger or smaller than the source by a factor, tile by tile."""
    up, down = max(1, len(out) // len(source)), max(1, len(source) // len(out))
    for row, column, result in _tile_results(network, method, source, side, margin, down):
        place = _part(row.first, row.last, up, down), _part(column.first, column.last, up, down)
        top, left = row.start * up // down, column.start * up // down
        out[place] = result[
            place[0].start - top : place[0].stop - top, place[1].start - left : place[1].stop - left
        ]


def _blend_tiles(
    network: Network, method: str, source: np.ndarray, out: np.ndarray, side: int, margin: int
) -> None:
    """Adds tiles to `out`, of the source's size, neighbours mixed linearly within the margin."""
    for row, column, result in _tile_results(network, method, source, side, margin, 1):
        weights = _ramps(row, margin)[:, None, None] * _ramps(column, margin)[None, :, None]
        part = result[: row.stop - row.start, : column.stop - column.start]
        out[row.start : row.stop, column.start : column.stop] += weights * part


def _tile_results(
    network: Network, method: str, source: np.ndarray, side: int, margin: int, align: int
) -> Iterator[tuple[Tile, Tile, np.ndarray]]:
    shape = tile_shape(source.shape[:2], side, align)
    sides = zip(source.shape[:2], shape, strict=True)
    rows, columns = (tiles(extent, length, margin, align) for extent, length in sides)
    for row, column in itertools.product(rows, columns):
        part = source[row.start : row.stop, column.start : column.stop]
        canvas = canvas_of([part], shape)
        yield row, column, run(network, method, canvas, sizes_of([part]))[0]


def _ramps(tile: Tile, fade: int) -> Float32[np.ndarray, " n"]:
    """Weight of a tile at its positions; at each of them those of all tiles add up to 1.

    For tiles of six times the fade or more: no position is then shared by three.
    """
    weights = np.ones(tile.stop - tile.start, np.float32)
    rise = (np.arange(2 * fade, dtype=np.float32) + 0.5) / (2 * fade)
    if tile.first > tile.start:
        weights[: tile.first - fade - tile.start] = 0
        weights[tile.first - fade - tile.start : tile.first + fade - tile.start] = rise
    if tile.last < tile.stop:
        weights[tile.last + fade - tile.start :] = 0
        weights[tile.last - fade - tile.start : tile.last + fade - tile.start] = rise[::-1]
    return weights


def _is_local(config: ModelConfig) -> bool:
    return not config.fcm_width or config.fcm in LOCAL_KINDS


def _in_tiles(shape: Sequence[int], unit: int, mode: str) -> bool:
    if mode not in MODES:
        raise UserError(f"there is no mode {mode!r}: choose one of {', '.join(MODES)}")
    large = shape[0] * shape[1] * unit**2 > WHOLE_PIXELS
    return large if mode == "auto" else mode != "whole"


def _unless(tiled: Sequence[bool], arrays: Sequence[np.ndarray]) -> list[np.ndarray | None]:
    return [None if cut else array for cut, array in zip(tiled, arrays, strict=True)]


def _pad(image: Image) -> Image:
    height, width, _ = image.shape
    edges = ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0))
    return np.pad(image, edges, mode="reflect") if any(map(any, edges)) else image


def _crop(values: Values, shape: Sequence[int], unit: int) -> Values:
    return values[: shape[0] // unit, : shape[1] // unit]


def _multiple(value: int, of: int) -> int:
    return -(-value // of) * of


def _part(first: int, last: int, up: int, down: int) -> slice:
    return slice(first * up // down, last * up // down)
