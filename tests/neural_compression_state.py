"""State dicts of NeuralCompression's `HiFiCAutoencoder`, filled by the seed rule."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np

TRANSPOSED = r"decoder\.blocks\.[0-3]\.0\.weight|hyper_synthesis_\w+\.[02]\.weight"


def generator(name: str) -> np.random.Generator:
    seed = int.from_bytes(hashlib.sha256(f"msillm:{name}".encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed))


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers in [0, 1) of an input that is not stored."""
    return generator(name).random(shape, dtype=np.float32)


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
    n = generator(name).standard_normal(shape, dtype=np.float32)
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
