"""Procedural training images: occluding shapes of all sizes, the "dead leaves" model.

Lee, Mumford & Huang, "Occlusion models for natural images", IJCV 41 (2001); Ruderman, "Origins of
scaling in natural images", Vision Research 37 (1997). Opaque shapes with radii of density r^-3 fall
on one another; what stays visible has the edges, the scale invariance and nearly the 1/f^2 power
spectrum of photographs. Colours and textures are drawn per shape from a palette drawn per image.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int32, UInt8

_OVERSAMPLING = 2  # each pixel averages 2 x 2 points: smooth outlines
_LAYERS = 2.5  # mean number of shapes over a point; the ground shows through where there is none
_MAX_LOOPED = 24  # shapes with a wider half-box are painted one by one, the others all at once
_NOISE_SIDE = 256  # side of the periodic noise fields that textures are cut from

# Directions of colour in logit space: light, yellow-blue, red-green. Natural colours spread along
# them in about these proportions (Ruderman, Cronin & Chiao, JOSA A 15, 1998).
_COLOUR_AXES = np.array([[1.0, 1.0, 1.0], [0.55, 0.15, -0.9], [0.6, -0.5, 0.1]], np.float32)
_COLOUR_SPREAD = np.array([1.0, 0.35, 0.16], np.float32)


class DeadLeaves:
    """`count` images; image i depends on (seed, i) alone.

    Items are uint8 (size, size, 3) in [0, 255]. The numbers drawn are NumPy's, so they are the same
    on every run but may differ between NumPy versions.
    """

    def __init__(self, count: int, size: int = 256, seed: int = 0):
        self.names = [f"dead_leaves_{i:05d}" for i in range(count)]
        self._size, self._seed = size, seed

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "size size 3"]:
        index = range(len(self.names))[index]  # IndexError past the end, negatives from the end
        return render(np.random.default_rng([self._seed, index]), self._size)


class _Leaves(NamedTuple):
    """Outlines of n shapes, in points (pixels times the oversampling); the last lies on top."""

    reach: Float[np.ndarray, " n"]  # half-width of a square around the shape
    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    along: Float[np.ndarray, "n 2"]  # maps an offset from the centre to the shape's own axes,
    across: Float[np.ndarray, "n 2"]  # where it measures 1
    box: Float[np.ndarray, " n"]  # 1 for parallelograms, 0 for rounded shapes
    bend: Float[np.ndarray, " n"]  # from an ellipse (0) to a rounded triangle
    cut: Float[np.ndarray, " n"]  # a chord takes off what lies beyond


def render(rng: np.random.Generator, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """One image in [0, 255], drawn with `rng`."""
    side = size * _OVERSAMPLING
    leaves = _draw_leaves(rng, side)
    labels = _paint(leaves, side)
    logits = _colour(rng, labels, len(leaves.x) + 1)
    shape = (size, _OVERSAMPLING, size, _OVERSAMPLING, 3)
    logits = logits.reshape(shape).mean(axis=(1, 3))
    return np.rint(255.0 / (1.0 + np.exp(-logits))).astype(np.uint8)


def _draw_leaves(rng: np.random.Generator, side: int) -> _Leaves:
    smallest = rng.uniform(2.0, 5.0) * _OVERSAMPLING
    grid = np.geomspace(smallest, max(0.4 * side, 2 * smallest), 256)
    # Centres lie up to one reach outside the image, hence the growing square; r^-3 dr is
    # r^-2 dlog(r), and the grid is even in log(r).
    density = grid**-2 * (side + 3.0 * grid) ** 2
    covered = np.sum(density * 0.6 * np.pi * grid**2 / (side + 3.0 * grid) ** 2) / np.sum(density)
    n = int(np.ceil(_LAYERS / covered))
    cdf = np.cumsum(density) / np.sum(density)
    radius = np.interp(rng.random(n), cdf, grid)
    aspect = np.exp(-np.abs(rng.normal(0.0, 0.5, n)))  # short axis / long axis
    angle = rng.uniform(0.0, np.pi, n)
    box = rng.random(n) < rng.uniform(0.1, 0.5)
    reach = radius * np.where(box, np.sqrt(2.0), 1.25)
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    shear = np.where(box, rng.normal(0.0, 0.3, n), 0.0)[:, None]
    normal = np.stack([-direction[:, 1], direction[:, 0]], axis=1)
    f32 = np.float32
    return _Leaves(
        reach=reach.astype(f32),
        x=rng.uniform(-reach, side + reach).astype(f32),
        y=rng.uniform(-reach, side + reach).astype(f32),
        along=((direction + shear * normal) / radius[:, None]).astype(f32),
        across=(normal / (radius * aspect)[:, None]).astype(f32),
        box=box.astype(f32),
        bend=rng.uniform(0.0, 0.3, n).astype(f32),
        cut=rng.uniform(0.2, 2.5, n).astype(f32),
    )


def _inside(leaves: _Leaves, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Whether offsets (dx, dy) from the centre lie in the shape; all arguments broadcast."""
    u = leaves.along[..., 0] * dx + leaves.along[..., 1] * dy
    v = leaves.across[..., 0] * dx + leaves.across[..., 1] * dy
    uu, vv = u * u, v * v
    rounded = uu + vv + leaves.bend * u * (uu - 3.0 * vv)
    extent = np.where(leaves.box > 0, np.maximum(uu, vv), rounded)
    return (extent <= 1.0) & (u + 0.5 * v <= leaves.cut)


def _paint(leaves: _Leaves, side: int) -> Int32[np.ndarray, "side side"]:
    """Number of the topmost shape at each point, counted from 1; 0 is the ground."""
    labels = np.zeros((side, side), np.int32)
    half = np.ceil(leaves.reach).astype(np.int32)
    lower = 0
    for upper in (6, 9, 12, 17, _MAX_LOOPED):
        _paint_at_once(leaves, np.flatnonzero((half > lower) & (half <= upper)), upper, labels)
        lower = upper
    for i in np.flatnonzero(half > _MAX_LOOPED):
        x0, x1 = _clip(leaves.x[i], half[i], side)
        y0, y1 = _clip(leaves.y[i], half[i], side)
        dx = np.arange(x0, x1, dtype=np.float32)[None, :] - leaves.x[i]
        dy = np.arange(y0, y1, dtype=np.float32)[:, None] - leaves.y[i]
        window = labels[y0:y1, x0:x1]
        one = _Leaves(*(field[i] for field in leaves))
        np.copyto(window, np.int32(i + 1), where=_inside(one, dx, dy) & (window <= i))
    return labels


def _clip(centre: float, half: int, side: int) -> tuple[int, int]:
    return max(0, int(centre) - half), max(0, min(side, int(centre) + half + 2))


def _paint_at_once(leaves: _Leaves, chosen: np.ndarray, half: int, labels: np.ndarray) -> None:
    """Paints the chosen small shapes, each in a square of 2 half + 2 points, into `labels`."""
    side = labels.shape[0]
    few = _Leaves(*(field[chosen, None, None] for field in leaves))
    steps = np.arange(-half, half + 2, dtype=np.int32)
    x = few.x.astype(np.int32) + steps[None, None, :]
    y = few.y.astype(np.int32) + steps[None, :, None]
    within = (x >= 0) & (x < side) & (y >= 0) & (y < side)
    shape, row, column = np.nonzero(_inside(few, x - few.x, y - few.y) & within)
    # Shapes come in rising order, and of several values for one point NumPy keeps the last.
    layer = np.zeros(side * side, np.int32)
    layer[y[shape, row, 0] * side + x[shape, 0, column]] = chosen[shape] + 1
    np.maximum(labels, layer.reshape(side, side), out=labels)


def _colour(
    rng: np.random.Generator, labels: Int32[np.ndarray, "side side"], n: int
) -> Float[np.ndarray, "side side 3"]:
    """Colour of each point as logits: 0 is mid grey."""
    side = labels.shape[0]
    flat = labels.reshape(-1)
    y, x = np.divmod(np.arange(side * side, dtype=np.int32), side)
    x, y = x.astype(np.float32), y.astype(np.float32)
    light = _light(rng, n, side)[flat]  # shading and stripes, per point
    wave = np.sin(light[:, 0] * x + light[:, 1] * y + light[:, 2]) * light[:, 3]
    wave += light[:, 4] * x + light[:, 5] * y + light[:, 6]
    wave += _noise(rng, n, flat, x, y)
    base = _palette(rng, n)[flat]
    return (base + wave[:, None]).reshape(side, side, 3)


def _palette(rng: np.random.Generator, n: int) -> Float[np.ndarray, "n 3"]:
    """Colour per shape: a few hues per image, each shape near one of them."""
    spread = _COLOUR_SPREAD * np.array([1.0, *rng.uniform(0.3, 1.6, 2)], np.float32)
    mean = rng.normal(0.0, 0.5, 3).astype(np.float32) * spread + np.float32([-0.4, 0.1, 0.0])
    hues = mean + rng.normal(0.0, 1.0, (rng.integers(3, 9), 3)).astype(np.float32) * spread
    own = rng.normal(0.0, 0.35, (n, 3)).astype(np.float32) * spread
    return (hues[rng.integers(0, len(hues), n)] + own) @ _COLOUR_AXES


def _light(rng: np.random.Generator, n: int, side: int) -> Float[np.ndarray, "n 7"]:
    """Per shape: stripes (2 frequencies, phase, amplitude) and a linear slope (2 and offset)."""
    angle = rng.uniform(0.0, 2.0 * np.pi, n)
    period = np.exp(rng.uniform(np.log(4.0), np.log(64.0), n)) * _OVERSAMPLING
    striped = (rng.random(n) < 0.2) * np.abs(rng.normal(0.0, 0.3, n))
    slope = rng.normal(0.0, 1.0, (n, 2)) * (rng.random(n) < 0.6)[:, None] / side
    return np.stack(
        [
            2.0 * np.pi * np.cos(angle) / period,
            2.0 * np.pi * np.sin(angle) / period,
            rng.uniform(0.0, 2.0 * np.pi, n),
            striped,
            slope[:, 0],
            slope[:, 1],
            -0.5 * side * slope.sum(axis=1),
        ],
        axis=1,
    ).astype(np.float32)


def _noise(
    rng: np.random.Generator, n: int, flat: np.ndarray, x: np.ndarray, y: np.ndarray
) -> Float[np.ndarray, " points"]:
    """1/f^k noise per point; each shape sees a field through its own turned, stretched frame."""
    fields = np.stack([_filtered_noise(rng, power) for power in (0.5, 1.0, 1.5)])
    angle = rng.uniform(0.0, 2.0 * np.pi, n)
    stretch = np.exp(np.abs(rng.normal(0.0, 0.6, n)))
    zoom = np.exp(rng.uniform(-0.7, 0.7, n)) / _OVERSAMPLING
    amplitude = np.abs(rng.normal(0.0, 0.25, n)) * (rng.random(n) < 0.75)
    frame = np.stack(
        [
            zoom * np.cos(angle),
            zoom * np.sin(angle),
            rng.uniform(0, _NOISE_SIDE, n) + 8 * _NOISE_SIDE,  # keeps the coordinates positive
            -zoom * np.sin(angle) / stretch,
            zoom * np.cos(angle) / stretch,
            rng.uniform(0, _NOISE_SIDE, n) + 8 * _NOISE_SIDE,
            amplitude,
        ],
        axis=1,
    ).astype(np.float32)[flat]
    which = rng.integers(0, len(fields), n).astype(np.int32)[flat]
    u = (frame[:, 0] * x + frame[:, 1] * y + frame[:, 2]).astype(np.int32) % _NOISE_SIDE
    v = (frame[:, 3] * x + frame[:, 4] * y + frame[:, 5]).astype(np.int32) % _NOISE_SIDE
    return fields.reshape(-1)[(which * _NOISE_SIDE + v) * _NOISE_SIDE + u] * frame[:, 6]


def _filtered_noise(rng: np.random.Generator, power: float) -> Float[np.ndarray, "side side"]:
    """Periodic noise of amplitude spectrum 1/f^power, mean 0, standard deviation 1."""
    frequency = np.hypot(
        np.fft.fftfreq(_NOISE_SIDE)[:, None], np.fft.rfftfreq(_NOISE_SIDE)[None, :]
    )
    frequency[0, 0] = np.inf
    white = np.fft.rfft2(rng.standard_normal((_NOISE_SIDE, _NOISE_SIDE)))
    field = np.fft.irfft2(white / frequency**power)
    return (field / field.std()).astype(np.float32)
