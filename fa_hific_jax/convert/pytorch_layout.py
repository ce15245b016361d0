"""Names and layouts that our parameters have in the PyTorch HiFiC.

References: J. Tan's port of HiFiC (Justin-Tan/high-fidelity-generative-compression, src/network and
src/compression) and the FA-HiFiC authors' fork of it (src/network/generator.py for FCM1 and FCM2).
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fa_hific_jax.models import STRIDE
from fa_hific_jax.models.autoencoder import ModelConfig, init_parameters
from fa_hific_jax.models.discriminator import SPECTRAL, Discriminator, DiscriminatorConfig

Shape = tuple[int, ...]

LEGACY_SIGMAS = (
    ("Encoder.gaussian_kernel_for_block1.sigma", "Encoder.gaussian_kernel_for_block2.sigma"),
    ("Generator.gaussian_kernel_for_fcm1.sigma", "Generator.gaussian_kernel_for_fcm2.sigma"),
)
"""Names of the fork's blur widths, each of shape (1,), in the order of the sigmas of
`spectrum_loss`."""


class Layout(NamedTuple):
    """The difference in storage: `theirs` maps our shape to theirs, `ours` their array to ours."""

    theirs: Callable[[Shape], Shape]
    ours: Callable[[np.ndarray], np.ndarray]


class Naming(NamedTuple):
    """The names in the state dicts of a project.

    Attributes:
      modules: patterns of our module paths, joined by "/", and functions from the numbers in a path
        to the name of the same module in theirs, which is numbered differently.
      parameter: maps one of our module paths and a parameter in it to (their name, layout).
    """

    modules: tuple[tuple[str, Callable[..., str]], ...]
    parameter: Callable[[str, str], tuple[str, Layout]]


class Source(NamedTuple):
    """The dotted name and the shape that one of our parameters has in their state dict."""

    key: str
    shape: Shape
    layout: Layout


SAME = Layout(lambda shape: shape, lambda array: array)
# Theirs is (out, in, h, w), ours is (h, w, in, out).
CONVOLUTION = Layout(lambda s: (s[3], s[2], s[0], s[1]), lambda a: a.transpose(2, 3, 1, 0))
# Theirs is (in, out, h, w), ours is (h, w, in, out). We store the kernel of the cross-correlation,
# which is theirs rotated by 180 degrees.
TRANSPOSED = Layout(
    lambda s: (s[2], s[3], s[0], s[1]), lambda a: a[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
)
PER_CHANNEL = Layout(lambda s: (1, *s, 1, 1), lambda a: a.reshape(-1))
# Theirs holds a lower quantile, the median and an upper quantile of each channel.
MEDIAN_OF_QUANTILES = Layout(lambda shape: (*shape, 1, 3), lambda a: a[:, 0, 1])
# The spectral norm's vector v of a 4x4 kernel is flattened from (in, h, w) in theirs and from
# (h, w, in) in ours.
RIGHT_VECTOR = Layout(
    lambda shape: shape, lambda a: a.reshape(-1, 4, 4).transpose(1, 2, 0).reshape(-1)
)

_MODULES = (
    (r"encoder/conv(\d)", lambda level: f"Encoder.conv_block{level + 1}.1"),
    (r"encoder/norm(\d)", lambda level: f"Encoder.conv_block{level + 1}.2"),
    (r"encoder/conv_out", lambda: "Encoder.conv_block_out.1"),
    (r"generator/norm_in", lambda: "Generator.conv_block_init.0"),
    (r"generator/conv_head", lambda: "Generator.conv_block_init.2"),
    (r"generator/norm_head", lambda: "Generator.conv_block_init.3"),
    (r"generator/block(\d+)/conv(\d)", lambda b, i: f"Generator.resblock_{b}.conv{i}"),
    (r"generator/block(\d+)/norm(\d)", lambda b, i: f"Generator.resblock_{b}.norm{i}"),
    (r"generator/up(\d)", lambda level: f"Generator.upconv_block{5 - level}.0"),
    (r"generator/norm(\d)", lambda level: f"Generator.upconv_block{5 - level}.1"),
    (r"generator/fcm(\d)/norm(\d)", lambda fcm, i: f"Generator.FCM{fcm}.{4 * i}"),
    (r"generator/fcm(\d)/conv(\d)", lambda fcm, i: f"Generator.FCM{fcm}.{4 * i + 3}"),
    (r"generator/conv_out", lambda: "Generator.conv_block_out.1"),
    (r"hyperprior/analysis/conv(\d)", lambda i: f"Hyperprior.analysis_net.conv{i + 1}"),
    (
        r"hyperprior/synthesis_mean/(?:up|conv)(\d)",
        lambda i: f"Hyperprior.synthesis_mu.conv{i + 1}",
    ),
    (
        r"hyperprior/synthesis_scale/(?:up|conv)(\d)",
        lambda i: f"Hyperprior.synthesis_std.conv{i + 1}",
    ),
    (r"hyperprior/prior", lambda: "Hyperprior.hyperlatent_likelihood"),
    (r"discriminator/context", lambda: "Discriminator.context_conv"),
    (r"discriminator/conv(\d)", lambda layer: f"Discriminator.conv{layer + 1}"),
    (r"discriminator/conv_out", lambda: "Discriminator.conv_out"),
)


def autoencoder_sources(config: ModelConfig, naming: Naming | None = None) -> dict[str, Any]:
    """Returns the tree of the model's parameters with a `Source` as each leaf.

    `naming` is that of the project whose variant the config has, by default the PyTorch HiFiC's.
    """
    shapes = jax.eval_shape(lambda key: init_parameters(config, key), jax.random.key(0))
    return _sources(shapes, (), naming or _PORT)


def discriminator_sources(config: DiscriminatorConfig, model: ModelConfig) -> dict[str, Any]:
    """Returns the trees "params" and "spectral" of the discriminator with `Source`s as leaves."""
    x = jax.ShapeDtypeStruct((1, STRIDE, STRIDE, 3), jnp.float32)
    side = STRIDE // 16
    y_hat = jax.ShapeDtypeStruct((1, side, side, model.latent_channels), jnp.float32)
    network = Discriminator(config, model.variant, model.input_range)
    variables = jax.eval_shape(network.init, jax.random.key(0), x, y_hat)
    names = {"params": variables["params"], "spectral": variables[SPECTRAL]}
    return {name: _sources(tree, ("discriminator",), _PORT) for name, tree in names.items()}


def _sources(tree: Any, prefix: tuple[str, ...], naming: Naming) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _source((*prefix, *(key.key for key in path)), leaf.shape, naming), tree
    )


def _source(path: tuple[str, ...], shape: Shape, naming: Naming) -> Source:
    module = "/".join(part for part in path[:-1] if part != "Conv_0")
    name, layout = naming.parameter(module, path[-1])
    return Source(f"{_module(module, naming)}.{name}", layout.theirs(shape), layout)


def _module(path: str, naming: Naming) -> str:
    for pattern, theirs in naming.modules:
        found = re.fullmatch(pattern, path)
        if found:
            return theirs(*map(int, found.groups()))
    raise ValueError(f"{path} does not exist in the other project")


def _parameter(module: str, name: str) -> tuple[str, Layout]:
    """Returns (their name, layout) of a parameter of one of our modules."""
    if name == "kernel" and re.search(r"/up\d$|/synthesis_", module):
        return "weight", TRANSPOSED
    if name == "kernel" and re.search(r"^discriminator/conv\d", module):
        return "weight_orig", CONVOLUTION
    if module == "hyperprior/prior":
        return f"{name[0].upper() if name[0] == 'h' else name[0]}_{name[1]}", SAME
    return {
        "kernel": ("weight", CONVOLUTION),
        "bias": ("bias", SAME),
        "gamma": ("gamma", PER_CHANNEL),
        "beta": ("beta", PER_CHANNEL),
        "scale": ("weight", SAME),
        "u": ("weight_u", SAME),
        "v": ("weight_v", RIGHT_VECTOR),
    }[name]


_PORT = Naming(_MODULES, _parameter)
