"""State dicts of PyTorch: where each of our parameters is in them, and in which layout."""

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from fa_hific_jax.errors import UserError, shown
from fa_hific_jax.models.autoencoder import ModelConfig, init_parameters

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
PER_CHANNEL = Layout(lambda s: (1, *s, 1, 1), lambda a: a.reshape(-1))
# Theirs holds a lower quantile, the median and an upper quantile of each channel.
MEDIAN_OF_QUANTILES = Layout(lambda shape: (*shape, 1, 3), lambda a: a[:, 0, 1])
# The spectral norm's vector v of a 4x4 kernel is flattened from (in, h, w) in theirs and from
# (h, w, in) in ours.
RIGHT_VECTOR = Layout(
    lambda shape: shape, lambda a: a.reshape(-1, 4, 4).transpose(1, 2, 0).reshape(-1)
)

PARAMETERS = {
    "kernel": ("weight", CONVOLUTION),
    "bias": ("bias", SAME),
    "gamma": ("gamma", PER_CHANNEL),
    "beta": ("beta", PER_CHANNEL),
    "scale": ("weight", SAME),
    "u": ("weight_u", SAME),
    "v": ("weight_v", RIGHT_VECTOR),
    "median": ("quantiles", MEDIAN_OF_QUANTILES),
}
"""Our name of a parameter -> (their name, layout), except where a project differs."""


class Naming(NamedTuple):
    """The names in the state dicts of a project."""

    # Patterns of our module paths, joined by "/", and functions from the numbers in a path to the
    # name of the same module in theirs, which is numbered differently.
    modules: tuple[tuple[str, Callable[..., str]], ...]
    # Maps one of our module paths and a parameter in it to (their name, layout).
    parameter: Callable[[str, str], tuple[str, Layout]]

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

    def width(self, state: Mapping[str, Any], path: str) -> int:
        """Returns the number of output channels of one of our convolutions in their state dict."""
        name = f"{self.module(path)}.bias"
        if name not in state:
            raise UserError(f"{name} is missing: the file does not hold a whole HiFiC")
        bias = state[name]
        if not isinstance(bias, np.ndarray) or bias.ndim != 1 or not bias.size:
            raise UserError(f"{name} has {_described(bias)} instead of one value per channel")
        return bias.size

    def sizes(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the widths and the number of residual blocks of the model in their state dict."""
        blocks = (f"{self.module(f'generator/block{i}/conv1')}.bias" for i in itertools.count())
        width = functools.partial(self.width, state)
        return {
            "encoder_widths": tuple(width(f"encoder/conv{i}") for i in range(5)),
            "generator_widths": (
                width("generator/conv_head"),
                *(width(f"generator/up{i}") for i in (4, 3, 2, 1)),
            ),
            "latent_channels": width("encoder/conv_out"),
            "hyper_channels": width("hyperprior/analysis/conv0"),
            "residual_blocks": len(list(itertools.takewhile(state.__contains__, blocks))),
        }


def autoencoder_sources(config: ModelConfig, naming: Naming) -> dict[str, Any]:
    """Returns the tree of the model's parameters with a `Source` as each leaf.

    `naming` is that of the project whose variant the config has.
    """
    shapes = jax.eval_shape(functools.partial(init_parameters, config), jax.random.key(0))
    return naming.sources(shapes)


def map_sources(function: Callable[[Source], Any], tree: Any) -> Any:
    """Returns the tree with each `Source` replaced by what the function returns for it."""
    return jax.tree.map(function, tree, is_leaf=lambda node: isinstance(node, Source))


def converted(state: Mapping[str, Any], tree: Any, others: Iterable[str] = ()) -> dict[str, Any]:
    """Returns the arrays of a tree of sources, in float32 and in our layout.

    Raises:
      UserError: an array is missing or does not fit, or the state holds anything else but `others`.
    """
    wanted = set(others)
    map_sources(lambda source: wanted.add(source.key), tree)
    for names, problem in ((wanted - set(state), "missing"), (set(state) - wanted, "unknown")):
        if names:
            listed = [shown(name[:200]) for name in sorted(names)]
            more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
            raise UserError(f"parameters are {problem}: {', '.join(listed[:3])}{more}")

    def array(source: Source) -> np.ndarray:
        value = source.layout.ours(floats(state, source.key, source.shape))
        return np.ascontiguousarray(value, np.float32)

    return map_sources(array, tree)


def floats(state: Mapping[str, Any], key: str, shape: Shape) -> np.ndarray:
    """Returns an array of the state; raises a UserError unless it has this shape and is finite."""
    value = state[key]
    if not isinstance(value, np.ndarray) or value.shape != shape:
        raise UserError(f"{key} has {_described(value)} instead of the shape {shape}")
    if value.dtype.kind != "f":
        raise UserError(f"{key} does not hold floating-point numbers")
    if not np.all(np.isfinite(value)):
        raise UserError(f"{key} holds values that are not finite")
    return value


def _described(value: Any) -> str:
    return f"the shape {value.shape}" if isinstance(value, np.ndarray) else "no numbers"
