"""Convolution, in the shapes that XLA computes fast on a CPU; values and parameters stay the same.

Matrix products reach the arithmetic peak of a CPU everywhere. XLA's convolutions do so in some
shapes only, and their gradients hardly ever (measured with the XLA of jax 0.5.3 and 0.10.2):

- few channels on one side, above all the 7x7 convolutions of images: vectors along the channels
  stay empty, in the gradients too. `_folded` makes four channels of each (2 to 8 times faster), and
  needs no stride, whose gradient is slow;
- few positions for many channels: `_by_patches` copies the patches, which are small beside the
  kernel, and multiplies once (1.3 to 2 times faster, in the gradients too);
- strides in float64: `_by_patches` again, in bands of rows that stay in the cache (1.5 times);
- gradients of kernels: they are convolutions with a kernel of the image's size.
  `_by_rows` computes them as matrix products (1.4 to 2.8 times);
- input without padding, in 0.10.2: all patches are written to memory before the product, which
  happens to no convolution that pads a single row. `_with_a_row_more` pads one (3 to 8 times
  faster forwards).

Where both sides have many channels, arithmetic decides, and Winograd's way does less of it: 1.2 to
2.5 times faster from 64 channels, in the gradients too. In float64, which has to give the same
latents everywhere, and in bfloat16 it is not taken.

Other platforms get XLA's own convolution.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.models import winograd

Kernel = Float[Array, "k k c o"]

# Channels from which folding does not pay, and values in all patches from which the row does.
_ENOUGH_CHANNELS = 16
_MANY_VALUES = 2**17

# Positions for each output channel up to which the patches are small beside the kernel.
_FEW_POSITIONS = 2

# Values of the patches of a band, which stay in the cache.
_CACHED = 2**20

# By side of the kernel, channels from which Winograd's way pays, and the tiles that pay for the
# transform of the kernel.
_MANY_CHANNELS = {2: 192, 3: 64}
_MANY_TILES = 64


def convolve(x: ops.Image, kernel: Kernel, stride: int = 1) -> Float[Array, "b _ _ o"]:
    """Returns the products of the kernel with each k x k window of x, at a stride of 1 or 2.

    `lax.conv_general_dilated(x, kernel, (stride, stride), "VALID")` in NHWC and HWIO, in the dtype
    of both. Differentiable as often as you like, forwards and backwards.
    """
    side, _, *channels = kernel.shape
    fold = side > 2 and (min(channels) < _ENOUGH_CHANNELS or (side % 2 == 0 and stride == 2))
    on_cpu = functools.partial(_folded if fold else _on_cpu, stride=stride)
    if stride == 1 and _suits_winograd(x, kernel):
        on_cpu = _by_winograd
    return lax.platform_dependent(
        x, kernel, cpu=on_cpu, default=functools.partial(_plain, stride=stride)
    )


def _plain(x: Array, kernel: Array, stride: int, rows: int = 0) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((0, rows), (0, 0)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _on_cpu(x: Array, kernel: Array, stride: int) -> Array:
    """`_plain` in one of the ways above, with a derivative by the kernel that is no convolution."""
    return _directly(x, kernel, stride)


def _derivative(
    stride: int, primals: tuple[Array, Array], tangents: tuple[Any, Any]
) -> tuple[Array, Array]:
    (x, kernel), (x_dot, kernel_dot) = primals, tangents
    y = _on_cpu(x, kernel, stride)
    y_dot = jnp.zeros_like(y)
    # What does not change, such as the kernels of LPIPS, costs nothing.
    if not isinstance(x_dot, SymbolicZero):
        y_dot += _directly(x_dot, kernel, stride)
    if not isinstance(kernel_dot, SymbolicZero):
        y_dot += _by_rows(x, kernel_dot, stride)
    return y, y_dot


_on_cpu.defjvp(_derivative, symbolic_zeros=True)


def _directly(x: Array, kernel: Array, stride: int) -> Array:
    if _few_positions(x, kernel, stride) or (stride == 2 and x.dtype == jnp.float64):
        return _by_patches(x, kernel, stride)
    return _with_a_row_more(x, kernel, stride)


# Gradients transform input and kernel again, since the results take 2 and 4 times their memory.
_by_winograd = jax.checkpoint(winograd.convolve)


def _suits_winograd(x: Array, kernel: Array) -> bool:
    """True for float32 with enough channels on both sides and enough positions."""
    side, _, *channels = kernel.shape
    if x.dtype != jnp.float32 or min(channels) < _MANY_CHANNELS.get(side, max(channels) + 1):
        return False
    height, width = (-(-extent // winograd.TILE) for extent in _output_size(x, kernel, 1))
    return len(x) * height * width >= _MANY_TILES


def _by_rows(x: Array, kernel: Array, stride: int) -> Array:
    """`_plain` in an order of products whose transpose by the kernel is fast.

    For few positions that is one product with all patches. Otherwise patches of one row meet all
    rows of the kernel; with strides, which see other rows of x, each row of the kernel in turn.
    """
    if _few_positions(x, kernel, stride):
        return _by_patches(x, kernel, stride)
    side, _, channels, outputs = kernel.shape
    height, width = _output_size(x, kernel, stride)
    columns = jnp.concatenate(_shifted(x, side, stride, width, axis=2), axis=-1)
    if stride == 1:
        taps = kernel.transpose(1, 2, 0, 3).reshape(side * channels, -1)
        products = columns.reshape(-1, side * channels) @ taps
        rows = lax.split(products.reshape(len(x), -1, width, side * outputs), [outputs] * side, 3)
        moved = [lax.slice_in_dim(row, r, r + height, axis=1) for r, row in enumerate(rows)]
        return functools.reduce(jnp.add, moved)
    # The transpose of `split` joins the rows; that of an index would add them up in zeros.
    taps = lax.split(kernel.reshape(-1, outputs), [side * channels] * side)
    # XLA multiplies two matrices up to twice as fast as arrays with more axes to sum over.
    products = [
        row.reshape(-1, row.shape[-1]) @ tap
        for row, tap in zip(_shifted(columns, side, stride, height, axis=1), taps, strict=True)
    ]
    return functools.reduce(jnp.add, products).reshape(-1, height, width, outputs)


def _by_patches(x: Array, kernel: Array, stride: int) -> Array:
    """`_plain` as products of patches with the kernel, in bands of rows if they are many."""
    side, outputs = len(kernel), kernel.shape[-1]
    height, width = _output_size(x, kernel, stride)
    values = len(x) * height * width * kernel[..., 0].size
    bands = 1 if _few_positions(x, kernel, stride) else min(height, -(-values // _CACHED))
    rows = -(-height // bands)

    def one(start: Array | int) -> Array:
        seen = lax.dynamic_slice_in_dim(x, start, stride * (rows - 1) + side, axis=1)
        columns = jnp.concatenate(_shifted(seen, side, stride, width, axis=2), axis=-1)
        patches = jnp.concatenate(_shifted(columns, side, stride, rows, axis=1), axis=-1)
        y = patches.reshape(-1, patches.shape[-1]) @ kernel.reshape(-1, outputs)
        return y.reshape(-1, rows, width, outputs)

    if bands == 1:
        return one(0)
    below = stride * (bands * rows - 1) + side - x.shape[1]
    x = jnp.pad(x, ((0, 0), (0, max(0, below)), (0, 0), (0, 0)))
    y = lax.map(one, stride * rows * jnp.arange(bands))
    return jnp.moveaxis(y, 0, 1).reshape(len(x), -1, width, outputs)[:, :height]


def _shifted(x: Array, side: int, stride: int, count: int, axis: int) -> list[Array]:
    """Returns what each of the `side` taps along an axis sees at `count` positions."""
    last = stride * (count - 1) + 1
    return [lax.slice_in_dim(x, i, i + last, stride, axis) for i in range(side)]


def _few_positions(x: Array, kernel: Array, stride: int) -> bool:
    height, width = _output_size(x, kernel, stride)
    return len(x) * height * width <= _FEW_POSITIONS * kernel.shape[-1]


def _with_a_row_more(x: Array, kernel: Array, stride: int) -> Array:
    """`_plain`, by way of one row of outputs too many."""
    height, width = _output_size(x, kernel, stride)
    if height * width * kernel[..., 0].size < _MANY_VALUES:
        return _plain(x, kernel, stride)
    return _plain(x, kernel, stride, rows=stride)[:, :height]


def _folded(x: Array, kernel: Array, stride: int) -> Array:
    """`_plain` with the pixels of 2x2 blocks as channels: inputs and, at stride 1, outputs.

    The kernel is widened by zeros to whole blocks, which costs 16/9 (3x3), 64/49 (7x7) or, at
    stride 2, 1 (4x4) times the products. Without strides left, no gradient is dilated.
    """
    height, width = _output_size(x, kernel, stride)
    outputs, channels = 2 // stride, kernel.shape[-1]
    blocks = _blocks(kernel, stride)
    rows, columns = (
        -(-extent // outputs) + blocks.shape[0] - 1 for extent in (height, width)
    )  # of input blocks
    edges = ((0, 0, 0), (0, 2 * rows - x.shape[1], 0), (0, 2 * columns - x.shape[2], 0), (0, 0, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), edges)
    x = x.reshape(-1, rows, 2, columns, 2, x.shape[-1]).transpose(0, 1, 3, 2, 4, 5)
    y = _on_cpu(x.reshape(*x.shape[:3], -1), blocks, 1)
    y = y.reshape(*y.shape[:3], outputs, outputs, channels).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(y.shape[0], outputs * y.shape[1], outputs * y.shape[3], channels)
    return y[:, :height, :width]


def _blocks(kernel: Array, stride: int) -> Array:
    """Returns the kernel of `_folded`: (t, t, 4 c, o) or, at stride 1, (t, t, 4 c, 4 o).

    It has a shifted copy of the kernel for each output of a block.
    """
    side, _, channels, _ = kernel.shape
    shifts = range(2 // stride)
    taps = -(-(side + shifts[-1]) // 2)
    free = 2 * taps - side
    # The gradients of the copies are added, which bfloat16 is too coarse for.
    wide = ops.at_least_float32(kernel)
    copies = jnp.stack(
        [
            jnp.pad(wide, ((r, free - r), (c, free - c), (0, 0), (0, 0)))
            for r in shifts
            for c in shifts
        ],
        axis=3,
    )
    copies = copies.reshape(taps, 2, taps, 2, channels, -1).transpose(0, 2, 1, 3, 4, 5)
    return copies.reshape(taps, taps, 4 * channels, -1).astype(kernel.dtype)


def _output_size(x: Array, kernel: Array, stride: int) -> tuple[int, int]:
    side = kernel.shape[0]
    return (x.shape[1] - side) // stride + 1, (x.shape[2] - side) // stride + 1
