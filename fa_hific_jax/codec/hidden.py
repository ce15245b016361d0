"""Replaces invisible colors, where alpha is 0, by smooth ones that cost almost no bits."""

import numpy as np
from jaxtyping import Float, UInt8


def fill_hidden(
    rgb: UInt8[np.ndarray, "h w 3"], alpha: UInt8[np.ndarray, "h w"] | None
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the image with smooth colors, derived from visible ones nearby, where alpha is 0.

    Means of visible colors at coarser and coarser scales fill the hidden pixels at the finer ones
    (the pull-push algorithm of Gortler et al. 1996). The result does not depend on the hidden
    colors.
    """
    if alpha is None or alpha.min() > 0:
        return rgb
    if alpha.max() == 0:
        return np.full_like(rgb, 128)
    visible = (alpha > 0)[..., None]
    return np.where(
        visible, rgb, np.rint(_filled(rgb.astype(np.float32), visible)).astype(np.uint8)
    )


def _filled(colors: Float[np.ndarray, "h w 3"], known: np.ndarray) -> Float[np.ndarray, "h w 3"]:
    if known.all():
        return colors
    height, width, _ = known.shape
    edges = ((0, height % 2), (0, width % 2), (0, 0))
    weight, total = (
        each[::2, ::2] + each[1::2, ::2] + each[::2, 1::2] + each[1::2, 1::2]
        for each in (np.pad(known.astype(np.float32), edges), np.pad(colors * known, edges))
    )
    coarse = _filled(total / np.maximum(weight, 1), weight > 0)
    return np.where(known, colors, _doubled(_doubled(coarse, 0), 1)[:height, :width])


def _doubled(values: Float[np.ndarray, "h w c"], axis: int) -> Float[np.ndarray, "h2 w2 c"]:
    """Returns twice as many values along an axis, interpolated linearly."""
    first, last = np.take(values, [0], axis), np.take(values, [-1], axis)
    near = np.concatenate([first, values, last], axis)
    count = values.shape[axis]
    before, after = (np.take(near, range(at, at + count), axis) for at in (0, 2))
    pair = np.stack([0.75 * values + 0.25 * before, 0.75 * values + 0.25 * after], axis + 1)
    shape = list(values.shape)
    shape[axis] *= 2
    return pair.reshape(shape).astype(np.float32)
