"""State dicts of NeuralCompression's `HiFiCAutoencoder`.

Those of full width are filled by the seed rule.
"""

import functools
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import reference_weights

from fa_hific_jax.convert.pytorch_layout import Source, autoencoder_sources, map_sources
from fa_hific_jax.models.autoencoder import ModelConfig

TRANSPOSED = r"decoder\.blocks\.[0-3]\.0\.weight|hyper_synthesis_\w+\.[02]\.weight"

CONFIG = ModelConfig(
    variant="neuralcompression",
    encoder_widths=(4, 5, 6, 7, 8),
    generator_widths=(8, 7, 6, 5, 4),
    latent_channels=5,
    hyper_channels=6,
    residual_blocks=1,
)


@functools.cache
def small_state() -> dict[str, np.ndarray]:
    """A state dict of the width of CONFIG, whose symbols spread and whose medians are no integers.

    Kernels have gains as of trained networks, so that scales lie on both sides of the bound.
    """
    rng, state = np.random.default_rng(0), {}

    def fill(source: Source) -> None:
        fan_in = np.prod(source.shape[1:]) if len(source.shape) == 4 else 10
        value = rng.normal(0, np.sqrt(2 / fan_in), source.shape)
        if source.key.endswith("gamma"):
            value += 1
        state[source.key] = value.astype(np.float32)

    map_sources(fill, autoencoder_sources(CONFIG))
    state["hyper_bottleneck.quantiles"] += np.float32([-10, 0, 10])
    state["hyper_analysis.4.weight"] *= 6
    state["encoder.blocks.5.weight"] *= 4
    state["hyper_synthesis_scale.4.bias"] += 2
    return state


def full_width(folder: Path) -> dict[str, np.ndarray]:
    """Every entry that is saved, buffers too; the stored hashes check the rule."""
    entries = json.loads((folder / "msillm_param_names.json").read_text())["state_dict"]
    state = {}
    for entry in entries:
        name, shape = entry["name"], tuple(entry["shape"])
        if entry["is_parameter"]:
            state[name] = value(name, shape, entry["rule"])
            found = hashlib.sha256(state[name].astype("<f4").tobytes()).hexdigest()
            assert found[:16] == entry["sha256_16"], name
        else:
            state[name] = np.asarray(entry.get("value", []), entry["dtype"]).reshape(shape)
    return state


def value(name: str, shape: tuple[int, ...], rule: str) -> np.ndarray:
    """The parameter of this name, shape and rule."""
    n = reference_weights.draw(name, shape, "msillm")
    if rule == "bias":
        return n * np.float32(0.01)
    if rule == "gamma":
        return np.float32(1) + np.float32(0.1) * n
    if rule in ("beta", "ab"):
        return np.float32(0.1) * n
    if rule == "scale_bias":
        return np.float32(0.6) + np.float32(0.3) * n
    if rule == "matrix":
        start = np.log(np.expm1(1 / (10 ** (1 / 5)) / shape[1]))
        return np.float32(start) + np.float32(0.1) * n
    if rule == "quantiles":
        return np.float32([-10, 0, 10]) + np.float32(0.4) * n
    fan_in = shape[0 if re.fullmatch(TRANSPOSED, name) else 1] * shape[2] * shape[3]
    return n * np.float32((3 if rule == "conv3x" else 1) * np.sqrt(2 / fan_in))
