"""State dicts of the PyTorch HiFiC and of the FA-HiFiC authors' fork, filled by the seed rule."""

import json
import re
from pathlib import Path

import numpy as np
import reference_weights

TRANSPOSED = r"Generator\.upconv_block\d\.0\.weight|Hyperprior\.synthesis_.*\.weight"

State = dict[str, np.ndarray]


def hific(folder: Path, residual_blocks: int) -> State:
    """Every entry that a training of the port saves, with the discriminator."""
    listed = json.loads((folder / "param_names_hific.json").read_text())
    return _state(listed["training_compression_gan"], residual_blocks)


def fork(folder: Path, residual_blocks: int) -> State:
    """What the authors' fork saves, without a discriminator as in their runs."""
    added = json.loads((folder / "param_names_fahific.json").read_text())
    state = {
        key: value
        for key, value in hific(folder, residual_blocks).items()
        if not key.startswith("Discriminator.")
    }
    return state | _state(added["training_compression_gan_added_to_upstream"], residual_blocks)


def _state(entries: list[dict], residual_blocks: int) -> State:
    shapes = {entry["name"]: tuple(entry["shape"]) for entry in entries}
    kept = {
        name: shape
        for name, shape in shapes.items()
        if not (block := re.match(r"Generator\.resblock_(\d+)", name))
        or int(block[1]) < residual_blocks
    }
    state = {name: value(name, shape) for name, shape in kept.items() if "weight_v" not in name}
    for name in kept.keys() - state.keys():
        weight = state[name.replace("weight_v", "weight_orig")]
        v = state[name.replace("weight_v", "weight_u")] @ weight.reshape(weight.shape[0], -1)
        state[name] = v / np.linalg.norm(v)
    return {name: state[name] for name in kept}


def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The parameter of this name and shape by the seed rule."""
    kind = name.rpartition(".")[2]
    if kind == "sigma":
        return np.float32([3.0])
    if kind.startswith("H_"):
        start = np.float32(np.log(np.expm1(1 / 10**0.25 / shape[1])))
        return start + reference_weights.offset(name, shape)
    if kind == "gamma" or (kind == "weight" and len(shape) == 2):
        return reference_weights.gain(name, shape)
    if kind[:2] in ("a_", "b_") or kind == "beta" or (kind == "bias" and len(shape) == 2):
        return reference_weights.offset(name, shape)
    drawn = reference_weights.draw(name, shape)
    if kind == "bias":
        return drawn * np.float32(0.01)
    if kind == "weight_u":
        return drawn / max(np.linalg.norm(drawn), np.float32(1e-12))
    fan_in = shape[0 if re.fullmatch(TRANSPOSED, name) else 1] * shape[2] * shape[3]
    return drawn * np.float32(np.sqrt(2 / fan_in))
