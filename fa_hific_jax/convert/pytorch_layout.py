"""Where each of our parameters is in the state dicts of two PyTorch projects, and in which layout.

References: J. Tan's port of HiFiC (Justin-Tan/high-fidelity-generative-compression, src/network and
src/compression), its fork by the FA-HiFiC authors (src/network/generator.py for FCM1 and FCM2), and
`HiFiCAutoencoder` of facebookresearch/NeuralCompression with CompressAI's `EntropyBottleneck`.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fa_hific_jax.errors import UserError, shown
from fa_hific_jax.models import STRIDE
from fa_hific_jax.models.autoencoder import ModelConfig, init_parameters
from fa_hific_jax.models.discriminator import SPECTRAL, Discriminator, DiscriminatorConfig

Shape = tuple[int, ...]


class Layout(NamedTuple):
    """The difference in storage: `theirs` maps our shape to theirs, `ours` their array to ours."""

    theirs: Callable[[Shape], Shape]
    ours: Callable[[np.ndarray], np.ndarray]


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
_PER_CHANNEL = Layout(lambda s: (1, *s, 1, 1), lambda a: a.reshape(-1))
# Theirs holds a lower quantile, the median and an upper quantile of each channel.
_MEDIAN = Layout(lambda shape: (*shape, 1, 3), lambda a: a[:, 0, 1])
# The spectral norm's vector v of a 4x4 kernel is flattened from (in, h, w) in theirs and from
# (h, w, in) in ours.
RIGHT_VECTOR = Layout(
    lambda shape: shape, lambda a: a.reshape(-1, 4, 4).transpose(1, 2, 0).reshape(-1)
)

# Our name of a parameter -> (their name, layout), except where a project differs.
_PARAMETERS = {
    "kernel": ("weight", CONVOLUTION),
    "bias": ("bias", SAME),
    "gamma": ("gamma", _PER_CHANNEL),
    "beta": ("beta", _PER_CHANNEL),
    "scale": ("weight", SAME),
    "u": ("weight_u", SAME),
    "v": ("weight_v", RIGHT_VECTOR),
    "median": ("quantiles", _MEDIAN),
}
# Patterns of our module paths, joined by "/", and functions from the numbers in a path to the name
# of the same module in theirs, which is numbered differently.
_HIFIC = (
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
    (r"hyperprior/synthesis_mean/\w+(\d)", lambda i: f"Hyperprior.synthesis_mu.conv{i + 1}"),
    (r"hyperprior/synthesis_scale/\w+(\d)", lambda i: f"Hyperprior.synthesis_std.conv{i + 1}"),
    (r"hyperprior/prior", lambda: "Hyperprior.hyperlatent_likelihood"),
    (r"discriminator/context", lambda: "Discriminator.context_conv"),
    (r"discriminator/conv(\d)", lambda layer: f"Discriminator.conv{layer + 1}"),
    (r"discriminator/conv_out", lambda: "Discriminator.conv_out"),
)
_RESIDUAL = "decoder.resid_blocks.{}.sequence.{}"
_NEURAL_COMPRESSION = (
    (r"encoder/conv(\d)", lambda level: f"encoder.blocks.{level}.0"),
    (r"encoder/norm(\d)", lambda level: f"encoder.blocks.{level}.1"),
    (r"encoder/conv_out", lambda: "encoder.blocks.5"),
    (r"generator/norm_in", lambda: "decoder.block_0.0"),
    (r"generator/conv_head", lambda: "decoder.block_0.1"),
    (r"generator/norm_head", lambda: "decoder.block_0.2"),
    (r"generator/block(\d+)/conv(\d)", lambda b, i: _RESIDUAL.format(b, 3 * i - 3)),
    (r"generator/block(\d+)/norm(\d)", lambda b, i: _RESIDUAL.format(b, 3 * i - 2)),
    (r"generator/up(\d)", lambda level: f"decoder.blocks.{4 - level}.0"),
    (r"generator/norm(\d)", lambda level: f"decoder.blocks.{4 - level}.1"),
    (r"generator/conv_out", lambda: "decoder.blocks.4"),
    (r"hyperprior/analysis/conv(\d)", lambda i: f"hyper_analysis.{2 * i}"),
    (r"hyperprior/synthesis_mean/(?:up|conv)(\d)", lambda i: f"hyper_synthesis_mean.{2 * i}"),
    (r"hyperprior/synthesis_scale/(?:up|conv)(\d)", lambda i: f"hyper_synthesis_scale.{2 * i}"),
    (r"hyperprior(?:/prior)?", lambda: "hyper_bottleneck"),
)


class Naming(NamedTuple):
    """The names in the state dicts of a project."""

    modules: tuple[tuple[str, Callable[..., str]], ...]
    transposed: str  # pattern of our modules that are transposed convolutions in theirs
    prior: dict[str, str]  # our first letter of a parameter of the prior -> what stands in theirs

    def parameter(self, module: str, name: str) -> tuple[str, Layout]:
        """Returns their name and layout of a parameter in one of our modules."""
        if module == "hyperprior/prior":
            return f"{self.prior[name[0]]}{name[1:]}", SAME
        if name == "kernel" and re.search(self.transposed, module):
            return "weight", TRANSPOSED
        if name == "kernel" and re.match(r"discriminator/conv\d", module):  # has a spectral norm
            return "weight_orig", CONVOLUTION
        return _PARAMETERS[name]

    def module(self, path: str) -> str:
        """Returns their name of one of our modules."""
        for pattern, theirs in self.modules:
            if found := re.fullmatch(pattern, path):
                return theirs(*map(int, found.groups()))
        raise ValueError(f"{path} does not exist in the other project")

    def sources(self, shapes: Any, *prefix: str) -> Any:
        """Returns a tree of parameters of the module `prefix` with `Source`s as leaves."""

        def source(path: tuple[Any, ...], leaf: Any) -> Source:
            *modules, name = (key.key for key in path)
            module = "/".join(part for part in (*prefix, *modules) if part != "Conv_0")
            theirs, layout = self.parameter(module, name)
            return Source(f"{self.module(module)}.{theirs}", layout.theirs(leaf.shape), layout)

        return jax.tree_util.tree_map_with_path(source, shapes)


HIFIC = Naming(_HIFIC, r"/up\d$|/synthesis_", {"h": "H_", "b": "b_", "a": "a_"})
# The spelling of the prior is that of CompressAI up to 1.2.4.
_SPELLED = {"h": "_matrix", "b": "_bias", "a": "_factor"}
NEURAL_COMPRESSION = Naming(_NEURAL_COMPRESSION, r"/up\d$", _SPELLED)


def autoencoder_sources(config: ModelConfig) -> dict[str, Any]:
    """Returns the tree of the model's parameters with `Source`s of its variant's project."""
    shapes = jax.eval_shape(functools.partial(init_parameters, config), jax.random.key(0))
    return (HIFIC if config.variant == "pytorch" else NEURAL_COMPRESSION).sources(shapes)


def discriminator_sources(config: DiscriminatorConfig, model: ModelConfig) -> dict[str, Any]:
    """Returns the trees "params" and "spectral" of the discriminator with `Source`s as leaves."""
    x = jax.ShapeDtypeStruct((1, STRIDE, STRIDE, 3), jnp.float32)
    side = STRIDE // 16
    y_hat = jax.ShapeDtypeStruct((1, side, side, model.latent_channels), jnp.float32)
    network = Discriminator(config, model.variant, model.input_range)
    variables = jax.eval_shape(network.init, jax.random.key(0), x, y_hat)
    names = {"params": variables["params"], "spectral": variables[SPECTRAL]}
    return {name: HIFIC.sources(tree, "discriminator") for name, tree in names.items()}


def map_sources(function: Callable[[Source], Any], tree: Any) -> Any:
    """Returns the tree with each `Source` replaced by what the function returns for it."""
    return jax.tree.map(function, tree, is_leaf=lambda node: isinstance(node, Source))


def converted(state: Mapping[str, Any], tree: Any) -> dict[str, Any]:
    """Returns the arrays of a tree of sources, in float32 and in our layout.

    Raises:
      UserError: an array is missing, does not fit or is not finite, or the state holds others.
    """
    wanted = set()
    map_sources(lambda source: wanted.add(source.key), tree)
    for names, problem in ((wanted - set(state), "missing"), (set(state) - wanted, "unknown")):
        if names:
            listed = ", ".join(shown(name[:200]) for name in sorted(names)[:3])
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(f"parameters are {problem}: {listed}{more}")

    def array(source: Source) -> np.ndarray:
        value = state[source.key]
        if (shape := getattr(value, "shape", None)) != source.shape:
            raise UserError(f"{source.key} has the shape {shape} instead of {source.shape}")
        if value.dtype.kind != "f" or not np.all(np.isfinite(value)):
            raise UserError(f"{source.key} holds values that are not finite floating-point numbers")
        return np.ascontiguousarray(source.layout.ours(value), np.float32)

    return map_sources(array, tree)
