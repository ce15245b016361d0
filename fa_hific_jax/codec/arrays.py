"""Converts models to named arrays, as model folders store them, and computes model ids."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int16, Int32, Int64, UInt16

from fa_hific_jax.codec import integer_synthesis as integers
from fa_hific_jax.codec.coding import EntropyModel
from fa_hific_jax.entropy.tables import PRECISION, SCALE_TABLE, Tables
from fa_hific_jax.settings.model import LATER, ModelConfig

# Decoding does not depend on these keys.
_NOT_DECODING = ("encoder_widths", "hyper_rounding", "fcm_dropout", "dtype")
_DECODER = ("generator", "linear_synthesis")

# Prefixes in the networks -> prefixes in model folders, which keep the names of the first ones.
_STORED_AS = (("linear_analysis/", "encoder/linear/"), ("linear_synthesis/", "generator/linear/"))


def model_id(config: ModelConfig, entropy: EntropyModel, params: Mapping[str, Any]) -> bytes:
    """Returns the first 8 bytes of a SHA-256 over everything that decoding depends on."""
    fields = {
        key: value
        for key, value in dataclasses.asdict(config).items()
        # A model that does not use a newer key keeps the id that it had before that key existed.
        if key not in _NOT_DECODING and not (key in LATER and value == LATER[key])
    }
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    decoding = {name: params[name] for name in _DECODER if name in params}
    if config.qualities:
        decoding["gains"] = {"log_inverse": params["gains"]["log_inverse"]}
    for name, array in sorted((entropy_arrays(entropy) | flat(decoding)).items()):
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{name} {little.dtype.str} {array.shape}".encode())
        digest.update(little.ravel().view(np.uint8).data)
    return digest.digest()[:8]


def flat(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns parameters by the flat names that model folders and model ids use."""
    from flax.traverse_util import flatten_dict  # loads JAX, without which files can be decoded

    leaves = flatten_dict(params, sep="/")
    for ours, theirs in _STORED_AS:
        leaves = {re.sub(f"^{ours}", theirs, name): leaf for name, leaf in leaves.items()}
    return {name: np.asarray(leaf) for name, leaf in leaves.items()}


def nested(leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the nested parameters of flat ones: the inverse of `flat`."""
    from flax.traverse_util import unflatten_dict

    for ours, theirs in _STORED_AS:
        leaves = {re.sub(f"^{theirs}", ours, name): leaf for name, leaf in leaves.items()}
    return unflatten_dict(dict(leaves), sep="/")


def entropy_arrays(entropy: EntropyModel) -> dict[str, np.ndarray]:
    """Returns all integers that the bytes of a file depend on, by name."""
    synthesis = entropy.synthesis
    arrays: dict[str, np.ndarray] = {"exact.thresholds": synthesis.thresholds}
    if synthesis.constants:
        arrays["exact.constants"] = np.array(synthesis.constants, np.int32)
    for network in ("mean", "scale"):
        for key, layer in getattr(synthesis, network)._asdict().items():
            arrays |= {f"exact.{network}.{key}.{n}": each for n, each in layer._asdict().items()}
    for name, tables in (("z", entropy.z_tables), ("y", entropy.y_tables)):
        # The counts of all rows are joined, because the padding of `cdf` would be most of a small
        # model. A row has at least two bins, so no count reaches 2**16.
        rows = zip(tables.cdf, tables.length, strict=True)
        counts = np.concatenate([np.diff(row[:length]) for row, length in rows])
        arrays[f"{name}.counts"] = counts.astype(np.uint16)
        arrays |= {f"{name}.offset": tables.offset, f"{name}.length": tables.length}
    return arrays


def entropy_from_arrays(arrays: Mapping[str, np.ndarray]) -> EntropyModel:
    """Inverts `entropy_arrays`, for arrays of unknown origin.

    Raises a KeyError if one is missing, and a UserError if one does not fit the others, or is so
    large that sums would not be exact.
    """
    constants = integers.MEDIAN_CHANNELS if "exact.constants" in arrays else ()
    mean = _network(arrays, "exact.mean", None, None)
    inputs, outputs = mean.up0.kernel.shape[2], mean.conv2.bias.size
    if inputs <= len(constants):
        raise integers.unusable("up0.kernel has no channels beside constants")
    scale = _network(arrays, "exact.scale", inputs, outputs)
    thresholds = _read(arrays, "exact.thresholds", Int64, outputs, len(SCALE_TABLE) - 1)
    synthesis = integers.IntegerSynthesis(mean, scale, thresholds, constants)
    integers.check_sums(synthesis)
    z_tables = _tables(arrays, "z", inputs - len(constants))
    return EntropyModel(z_tables, _tables(arrays, "y", len(SCALE_TABLE)), synthesis)


def _network(
    arrays: Mapping[str, np.ndarray], name: str, inputs: int | None, outputs: int | None
) -> integers.Network:
    layers = []
    for key, side in integers.KERNELS.items():
        key, wanted = f"{name}.{key}", outputs if key == "conv2" else None
        kernel = _read(arrays, f"{key}.kernel", Int16, side, side, inputs, wanted)
        inputs = kernel.shape[-1]
        bias = _read(arrays, f"{key}.bias", Int64, inputs)
        layers.append(integers.Layer(kernel, bias, _read(arrays, f"{key}.shift", Int32, inputs)))
    return integers.Network(*layers)


def _tables(arrays: Mapping[str, np.ndarray], name: str, rows: int) -> Tables:
    counts = _read(arrays, f"{name}.counts", UInt16, None)
    offset, length = (_read(arrays, f"{name}.{k}", Int32, rows) for k in ("offset", "length"))
    # A row of more than 2**PRECISION bins cannot have that sum, and `cdf` would be huge.
    fits = np.all((length >= 3) & (length <= 2**PRECISION + 1))
    if not (fits and np.sum(length - 1) == len(counts)):
        raise integers.unusable(f"{name}.length does not fit the other arrays")
    cdf = np.zeros((rows, int(length.max())), np.int32)
    for row, part in zip(cdf, np.split(counts, np.cumsum(length - 1)[:-1]), strict=True):
        row[1 : len(part) + 1] = np.cumsum(part, dtype=np.int32)
        if row[len(part)] != 2**PRECISION or np.any(part == 0):
            raise integers.unusable(f"{name}.counts does not sum to {2**PRECISION}")
    return Tables(cdf, offset, length)


def _read(arrays: Mapping[str, np.ndarray], name: str, kind: Any, *shape: int | None) -> Any:
    """Returns one of the arrays; None in `shape` stands for any number of channels, at least 1."""
    array, wanted = arrays[name], " ".join("_" if n is None else str(n) for n in shape)
    if not isinstance(array, kind[np.ndarray, wanted]) or 0 in array.shape:
        found = f"{array.dtype} {array.shape}"
        raise integers.unusable(f"{name} is {found}, not {kind.__name__} {wanted}")
    return array
