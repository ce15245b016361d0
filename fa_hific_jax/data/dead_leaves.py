"""Procedural training images: occluding shapes of all sizes, the "dead leaves" model.

Lee, Mumford & Huang, "Occlusion models for natural images", IJCV 41 (2001); Ruderman, "Origins of
scaling in natural images", Vision Research 37 (1997). Opaque shapes whose radii have density r^-3
occlude each other. The result has the edges, the scale invariance and nearly the 1/f^2 power
spectrum of photographs. Each shape draws its color and texture; each image draws its palette.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int32, UInt8

_OVERSAMPLING = 2  # A pixel averages 2 x 2 points, which smooths outlines.
_POINTS = [(i, j) for i in range(_OVERSAMPLING) for j in range(_OVERSAMPLING)]
_SMALLEST_RADIUS = (1.0, 8.0)  # range from which each image draws its smallest radius, pixels
_LAYERS = 2.5  # mean number of shapes that cover a point; the ground shows where none does
_FILL = 2.0  # mean area of a shape of radius 1
_PAINTED_AT_ONCE = (3, 5, 7, 9, 12, 17, 24)  # half-widths of the boxes of small shapes, points
_PIECE = 1 << 15  # points painted together, few enough for the processor's cache
_NOISE_SIDE = 256  # side of the periodic noise fields that textures are cut from, pixels
_NOISE_POWERS = (0.3, 0.9, 1.5)  # exponents k of the noise fields' amplitude spectra 1/f^k

# Color axes in logit space: light, yellow-blue, red-green. Natural colors vary along them in about
# these proportions (Ruderman, Cronin & Chiao, JOSA A 15, 1998).
_COLOR_AXES = np.array([[1.0, 1.0, 1.0], [0.55, 0.15, -0.9], [0.6, -0.5, 0.1]], np.float32)
_COLOR_SPREAD = np.array([1.0, 0.35, 0.16], np.float32)


class DeadLeaves:
    """A source of `count` images, uint8 (size, size, 3) in [0, 255].

    Image i depends on (seed, i) alone, but may differ between NumPy versions.
    """

    def __init__(self, count: int, size: int = 256, seed: int = 0):
        self.names = [f"dead_leaves_{i:05d}" for i in range(count)]
        self._size, self._seed = size, seed

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "size size 3"]:
        index = range(len(self.names))[index]  # Raises IndexError; negative ones count backwards.
        rng = np.random.default_rng([self._seed, index])
        leaves = _draw_leaves(rng, self._size * _OVERSAMPLING)
        labels = _paint(leaves, self._size * _OVERSAMPLING)
        # Colors are averaged over the points of a pixel. Textures are smooth: one point is enough.
        points = _palette(rng, len(leaves.box) + 1)[labels]
        logits = sum(points[i::_OVERSAMPLING, j::_OVERSAMPLING] for i, j in _POINTS) / len(_POINTS)
        texture = _texture(rng, leaves, labels[::_OVERSAMPLING, ::_OVERSAMPLING])
        logits = logits + texture[:, :, None]
        return np.rint(255.0 / (1.0 + np.exp(-logits))).astype(np.uint8)


class _Leaves(NamedTuple):
    """Outlines of n shapes, from bottom to top, in points (pixels times the oversampling)."""

    center: Float[np.ndarray, "... 2"]  # x, y
    reach: Float[np.ndarray, "... 2"]  # half the width and height of the bounding box
    along: Float[np.ndarray, "... 2"]  # Its dot product with an offset from the center is u,
    across: Float[np.ndarray, "... 2"]  # that of this is v; inside, both are at most about 1.
    box: Bool[np.ndarray, "..."]  # True for parallelograms, False for rounded shapes
    bend: Float[np.ndarray, "..."]  # 0 for ellipses, up to 0.5 for eggs
    chord: Float[np.ndarray, "... 2"]  # cuts rounded shapes off where its dot product exceeds 1


def _draw_leaves(rng: np.random.Generator, side: int) -> _Leaves:
    smallest = np.exp(rng.uniform(*np.log(_SMALLEST_RADIUS))) * _OVERSAMPLING
    radius = _draw_radii(rng, smallest, max(0.6 * side, 2.0 * smallest), side)
    n = len(radius)
    aspect = np.exp(-np.abs(rng.normal(0.0, 0.5, n)))  # short axis / long axis
    angle = rng.uniform(0.0, np.pi, n)
    box = rng.random(n) < rng.uniform(0.1, 0.5)
    shear = np.where(box, rng.normal(0.0, 0.3, n), 0.0)
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    normal = np.stack([-direction[:, 1], direction[:, 0]], axis=1)
    # Image vectors of the shape's unit vectors: the inverse of (along, across) applied to them.
    u_axis = radius[:, None] * direction
    v_axis = (radius * aspect)[:, None] * (normal - shear[:, None] * direction)
    # An egg of bend 0.5 extends up to 1.131 times as far as its ellipse.
    reach = np.where(box[:, None], np.abs(u_axis) + np.abs(v_axis), 1.14 * np.hypot(u_axis, v_axis))
    facing = rng.uniform(0.0, 2.0 * np.pi, n)
    fields = {
        "center": rng.uniform(-reach, side + reach),
        "reach": reach,
        "along": (direction + shear[:, None] * normal) / radius[:, None],
        "across": normal / (radius * aspect)[:, None],
        "bend": rng.uniform(0.0, 0.5, n),
        "chord": np.stack([np.cos(facing), np.sin(facing)], axis=1)
        / (radius * rng.uniform(0.2, 2.5, n))[:, None],
    }
    return _Leaves(box=box, **{name: value.astype(np.float32) for name, value in fields.items()})


def _draw_radii(
    rng: np.random.Generator, smallest: float, largest: float, side: int
) -> Float[np.ndarray, " n"]:
    """Draws radii of density r^-3, as many as cover the image about `_LAYERS` times."""
    radius = np.geomspace(smallest, largest, 256)
    # With evenly spaced logarithms, r^-3 dr becomes r^-2. Centers may lie one reach outside the
    # image, so the number of shapes is proportional to the area of that larger square.
    number = radius**-2 * (1.0 + 1.5 * radius / side) ** 2
    covered = np.sum(number * _FILL * (radius / (side + 1.5 * radius)) ** 2) / np.sum(number)
    n = int(np.ceil(_LAYERS / covered))
    return np.interp(rng.random(n), np.cumsum(number) / np.sum(number), radius)


def _inside(leaves: _Leaves, dx: np.ndarray, dy: np.ndarray) -> Bool[np.ndarray, "..."]:
    """Returns True where offsets (dx, dy) from the center are in the shape; all broadcast."""
    u = leaves.along[..., 0] * dx + leaves.along[..., 1] * dy
    v = leaves.across[..., 0] * dx + leaves.across[..., 1] * dy
    if leaves.box.all():
        return np.maximum(np.abs(u), np.abs(v)) <= 1.0
    # Inside, u >= -1 and the bound changes nothing. Without it, distant points would be inside too.
    egg = u * u + v * v * np.maximum(1.0 + leaves.bend * u, 0.5) <= 1.0
    chord = leaves.chord[..., 0] * dx + leaves.chord[..., 1] * dy <= 1.0
    return egg & chord


def _paint(leaves: _Leaves, side: int) -> Int32[np.ndarray, "side side"]:
    """Returns the number of the topmost shape at each point, counted from 1; 0 is the ground."""
    margin = 2 * _PAINTED_AT_ONCE[-1] + 2  # Small shapes then need no clipping.
    canvas = np.zeros((side + 2 * margin, side + 2 * margin), np.int32)
    leaves = leaves._replace(center=leaves.center + np.float32(margin))
    half = np.ceil(leaves.reach.max(axis=1)).astype(np.int32)
    lower = 0
    for upper in _PAINTED_AT_ONCE:
        for box in (False, True):
            chosen = np.flatnonzero((half > lower) & (half <= upper) & (leaves.box == box))
            pieces = 1 + len(chosen) * (2 * upper + 2) ** 2 // _PIECE
            for piece in np.array_split(chosen, pieces):
                _paint_at_once(leaves, piece, upper, canvas)
        lower = upper
    for i in np.flatnonzero(half > lower):
        leaf = _Leaves(*(field[i] for field in leaves))
        low = np.clip(np.floor(leaf.center - leaf.reach).astype(int), 0, len(canvas))
        high = np.clip(np.ceil(leaf.center + leaf.reach).astype(int) + 1, 0, len(canvas))
        dx = np.arange(low[0], high[0], dtype=np.float32)[None, :] - leaf.center[0]
        dy = np.arange(low[1], high[1], dtype=np.float32)[:, None] - leaf.center[1]
        window = canvas[low[1] : high[1], low[0] : high[0]]
        np.maximum(window, np.int32(i + 1) * _inside(leaf, dx, dy), out=window)
    return canvas[margin:-margin, margin:-margin]


def _paint_at_once(leaves: _Leaves, chosen: np.ndarray, half: int, canvas: np.ndarray) -> None:
    """Paints the chosen small shapes, each in a square of 2 half + 2 points."""
    few = _Leaves(*(field[chosen, None, None] for field in leaves))
    steps = np.arange(-half, half + 2, dtype=np.int32)
    x = few.center[..., 0].astype(np.int32) + steps[None, None, :]
    y = few.center[..., 1].astype(np.int32) + steps[None, :, None]
    inside = _inside(few, x - few.center[..., 0], y - few.center[..., 1])
    points = (y * np.int32(canvas.shape[1]) + x)[inside]
    numbers = np.repeat((chosen + 1).astype(np.int32), np.count_nonzero(inside, axis=(1, 2)))
    np.maximum.at(canvas.reshape(-1), points, numbers)


def _palette(rng: np.random.Generator, n: int) -> Float[np.ndarray, "n 3"]:
    """Draws each shape's color in logits (0 is mid gray), near one of the image's few hues."""
    spread = _COLOR_SPREAD * np.array([1.0, *rng.uniform(0.3, 1.6, 2)])
    mean = np.array([-0.4, 0.1, 0.0]) + rng.normal(0.0, 0.5, 3) * spread
    hues = mean + rng.normal(0.0, 1.0, (rng.integers(3, 9), 3)) * spread
    own = rng.normal(0.0, 0.35, (n, 3)) * spread
    colors = (hues[rng.integers(0, len(hues), n)] + own) @ _COLOR_AXES
    return colors.astype(np.float32)


def _texture(
    rng: np.random.Generator, leaves: _Leaves, labels: Int32[np.ndarray, "size size"]
) -> Float[np.ndarray, "size size"]:
    """Draws what textures add to the color logits: a slope and stripes along u, and 1/f^k noise."""

    def of_pixels(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float32)[labels]

    size, n = len(labels), len(leaves.box) + 1
    angle = rng.uniform(0.0, 2.0 * np.pi, n)
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = np.concatenate([np.full((1, 2), size / 2), leaves.center / _OVERSAMPLING]).T
    radius = np.append(size / 2, leaves.reach.max(axis=1) / _OVERSAMPLING)
    frequency = 2.0 * np.pi / np.exp(rng.uniform(np.log(4.0), np.log(64.0), n))  # of stripes
    zoom = np.exp(rng.uniform(-0.7, 0.7, n))  # noise pixels per image pixel, along u
    slope = rng.normal(0.0, 0.3, n) / radius
    stripes = (rng.random(n) < 0.2) * np.abs(rng.normal(0.0, 0.3, n))  # amplitude
    deviation = (rng.random(n) < 0.8) * np.abs(rng.normal(0.0, 0.3, n))  # of the noise
    zoom_across = zoom * np.exp(-np.abs(rng.normal(0.0, 0.6, n)))
    start = rng.uniform(0.0, len(_NOISE_POWERS) * _NOISE_SIDE**2, n)  # noise pixel at the center

    columns = np.arange(size, dtype=np.float32)[None, :]
    rows = np.arange(size, dtype=np.float32)[:, None]
    u = of_pixels(cos) * columns + of_pixels(sin) * rows + of_pixels(-(cos * x + sin * y))
    v = of_pixels(-sin) * columns + of_pixels(cos) * rows + of_pixels(sin * x - cos * y)
    # The periodic fields are stacked vertically; each shape reads them from its own start.
    column = (of_pixels(zoom) * u).astype(np.int32)
    row = (of_pixels(zoom_across) * v).astype(np.int32)
    fields = _noise_fields(rng)
    place = (of_pixels(start).astype(np.int32) + row * _NOISE_SIDE + column) % fields.size
    noise = of_pixels(deviation) * fields.reshape(-1)[place]
    return of_pixels(slope) * u + of_pixels(stripes) * np.sin(of_pixels(frequency) * u) + noise


def _noise_fields(rng: np.random.Generator) -> Float[np.ndarray, "fields side side"]:
    """Draws periodic noise of mean 0 and deviation 1, with a spectrum 1/f^k for each power k."""
    rows, columns = np.fft.fftfreq(_NOISE_SIDE)[:, None], np.fft.rfftfreq(_NOISE_SIDE)[None, :]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    white = np.fft.rfft2(rng.standard_normal((_NOISE_SIDE, _NOISE_SIDE)))
    spectra = white / frequency ** np.array(_NOISE_POWERS)[:, None, None]
    fields = np.fft.irfft2(spectra)
    return (fields / fields.std(axis=(1, 2), keepdims=True)).astype(np.float32)
