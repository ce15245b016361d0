"""Conditional patch discriminator: image and latents to one logit per patch."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.fidelity.variants import VARIANTS, Padding
from fa_hific_jax.models.convolution import convolve
from fa_hific_jax.models.layers import GLOROT, Conv, Edges, Features, Resized, pad, same_padding
from fa_hific_jax.settings.model import DiscriminatorConfig

SPECTRAL = "spectral"  # collection of the power iteration's vectors, the only state
# With these a 4x4 convolution of stride 2 halves the size exactly, and one of stride 1 keeps it.
# They are those of TensorFlow's "SAME".
HALVING_4X4: Padding = ((1, 1), (1, 1))
KEEPING_4X4: Padding = ((1, 2), (1, 2))
# Which of four halving taps fall on the square of 16 pixels before, on the own one and on the next,
# for the first, the middle and the last of the outputs along a square.
_FALLS = (
    ((1, 0, 0, 0), (0, 1, 1, 1), (0, 0, 0, 0)),
    ((0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 0, 0)),
    ((0, 0, 0, 0), (1, 1, 1, 0), (0, 0, 0, 1)),
)


class SpectralConv(nn.Module):
    """Convolution of a padded input whose kernel is divided by its largest singular value.

    Miyato et al. 2018: sigma = u^T W v with W of shape (outputs, rest). The vectors u and v are
    state in the collection "spectral". Applying the module makes one power iteration if the
    collection is mutable, otherwise none. The gradient flows through W in sigma, not through u and
    v. W, u, v and sigma are float32; the convolution is computed in `dtype`.
    """

    features: int
    kernel: int
    stride: int
    padding: Padding
    mode: Edges
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Features, context: Float[Array, "b hy wy cy"] | None = None) -> Resized:
        """Convolves x and, as further channels, each pixel of `context` repeated 16 x 16 times."""
        inputs = x.shape[-1] + (0 if context is None else context.shape[-1])
        shape = (self.kernel, self.kernel, inputs, self.features)
        kernel = self.param("kernel", GLOROT, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        weights = kernel.reshape(-1, self.features)

        def random_unit():
            return _unit(jax.random.normal(self.make_rng("params"), (self.features,)))

        u = self.variable(SPECTRAL, "u", random_unit)
        v = self.variable(SPECTRAL, "v", lambda: _unit(weights @ u.value))
        if self.is_mutable_collection(SPECTRAL) and not self.is_initializing():
            fixed = jax.lax.stop_gradient(weights)
            v.value = _unit(fixed @ u.value)
            u.value = _unit(v.value @ fixed)
        sigma = v.value @ weights @ u.value
        kernel, of_context = jnp.split(kernel / sigma, [x.shape[-1]], axis=2)
        x = pad(x.astype(self.dtype), self.padding, self.mode)
        y = convolve(x, kernel.astype(self.dtype), self.stride)
        if context is not None:
            y += convolve_squares(context.astype(self.dtype), of_context, self.mode)
        return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)


def convolve_squares(
    x: Float[Array, "b hy wy c"], kernel: Float[Array, "4 4 c o"], mode: Edges
) -> Float[Array, "b _ _ o"]:
    """Returns the halving 4x4 convolution of x with each pixel repeated 16 x 16 times.

    Along an axis, the taps of an output fall on at most two squares of equal pixels, so it is a sum
    of taps times a pixel of x, or two. Among the 8 outputs of a square those in the middle are the
    same. Computing three of them at the size of x saves most of the time and memory of the layer.
    """
    falls = jnp.asarray(_FALLS, kernel.dtype)
    taps = jnp.einsum("pat,qbs,tsco->abcpqo", falls, falls, kernel)
    taps = taps.reshape(3, 3, x.shape[-1], -1).astype(x.dtype)
    edges = ((0, 0), (1, 1), (1, 1), (0, 0))
    y = convolve(jnp.pad(x, edges, "edge" if mode == "reflect" else mode), taps)
    y = y.reshape(*x.shape[:3], 3, 3, -1)
    for axis in (3, 4):
        first, middle, last = jnp.split(y, 3, axis)
        y = jnp.concatenate([first, *[middle] * 6, last], axis)
    return y.transpose(0, 1, 3, 2, 4, 5).reshape(len(x), 8 * x.shape[1], 8 * x.shape[2], -1)


class Discriminator(nn.Module):
    """Conditional patch discriminator of HiFiC (Mentzer et al. 2020, fig. 2 and appendix A).

    Its input is the image and, as further channels, a context: y_hat after a 3x3 convolution,
    upsampled 16 times by nearest neighbors. 4x4 convolutions with LeakyReLU(0.2) follow, and a head
    that returns one logit per patch.

    In the PyTorch HiFiC (src/network/discriminator.py) all 4x4 convolutions have stride 2 and a
    spectral norm. The head is 1x1, head and context have no spectral norm, and edges are reflected.
    In the original (archs.py) the last 4x4 convolution has stride 1, the head is 4x4, every
    convolution has a spectral norm, and edges are padded with zeros. (The paper's figure has stride
    1 and a 1x1 head.) With the input range "symmetric" the convolutions see images in [-1, 1].
    """

    config: DiscriminatorConfig
    variant: str
    input_range: str
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], y_hat: Float[Array, "b hy wy cy"]
    ) -> Float[Array, "b hd wd 1"]:
        """Returns logits (positive: real) of images in [0, 1] and their latents.

        If the codec padded the image, x is smaller than 16 times y_hat, and the context is cropped.
        """
        as_original = VARIANTS[self.variant].discriminator_head == 4
        channels, dtype = self.config.context_channels, self.dtype
        edges = "constant" if as_original else "reflect"
        spectral = functools.partial(SpectralConv, mode=edges, dtype=dtype)
        halving = functools.partial(spectral, kernel=4, stride=2, padding=HALVING_4X4)
        keeping = functools.partial(spectral, kernel=4, stride=1, padding=KEEPING_4X4)
        convs = [halving] * len(self.config.widths)
        if as_original:
            convs[-1] = keeping
            condition = spectral(channels, 3, 1, same_padding(3), name="context")
            head = keeping(1, name="conv_out")
        else:
            condition = Conv(channels, 3, dtype=dtype, name="context")
            head = Conv(1, 1, dtype=dtype, name="conv_out")

        x = ops.at_least_float32(x)
        if self.input_range == "symmetric":
            x = 2.0 * x - 1.0
        context = nn.leaky_relu(condition(y_hat), 0.2)
        h = (x, context)
        if convs[0] is keeping or x.shape[1:3] != tuple(16 * n for n in context.shape[1:3]):
            context = jnp.repeat(jnp.repeat(context, 16, axis=1), 16, axis=2)
            context = context[:, : x.shape[1], : x.shape[2]]
            h = (jnp.concatenate([x.astype(dtype), context], axis=-1),)
        for layer, (conv, width) in enumerate(zip(convs, self.config.widths, strict=True)):
            h = (nn.leaky_relu(conv(width, name=f"conv{layer}")(*h), 0.2),)
        return ops.at_least_float32(head(h[0]))


def _unit(x):
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)
