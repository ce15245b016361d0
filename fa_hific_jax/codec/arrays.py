"""Converts models to named arrays, as model folders store them, and computes model ids."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from fa_hific_jax.codec import integer_synthesis
from fa_hific_jax.codec.coding import EntropyModel
from fa_hific_jax.codec.integer_synthesis import read, unusable
from fa_hific_jax.entropy.tables import PRECISION, SCALE_TABLE, Tables
from fa_hific_jax.settings.model import LATER, ModelConfig

# Decoding does not depend on these keys. Other encoders, and other precisions of the decoder, read
# and write files of the same model.
_NOT_DECODING = ("encoder_widths", "hyper_rounding", "fcm_dropout", "dtype")

# Prefixes in the networks -> prefixes in model folders, which keep the names of the first ones.
_STORED_AS = {
    "linear_analysis/": "encoder/linear/",
    "linear_synthesis/": "generator/linear/",
}
_EXACT = "exact."  # precedes the names of `integer_synthesis.to_arrays`


def model_id(config: ModelConfig, entropy: EntropyModel, params: Mapping[str, Any]) -> bytes:
    """Returns the first 8 bytes of a SHA-256 over everything that decoding depends on."""
    fields = {
        key: value
        for key, value in dataclasses.asdict(config).items()
        # A model that does not use a newer key keeps the id that it had before that key existed.
        if key not in _NOT_DECODING and not (key in LATER and value == LATER[key])
    }
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    parts = ("generator", "linear_synthesis")
    decoding = {name: params[name] for name in parts if name in params}
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
    return {_renamed(name, _STORED_AS): np.asarray(leaf) for name, leaf in leaves.items()}


def nested(leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the nested parameters of flat ones: the inverse of `flat`."""
    from flax.traverse_util import unflatten_dict

    ours = {stored: name for name, stored in _STORED_AS.items()}
    return unflatten_dict({_renamed(name, ours): leaf for name, leaf in leaves.items()}, sep="/")


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def entropy_arrays(entropy: EntropyModel) -> dict[str, np.ndarray]:
    """Returns all integers that the bytes of a file depend on, by name."""
    arrays = integer_synthesis.to_arrays(entropy.synthesis)
    arrays = {_EXACT + name: array for name, array in arrays.items()}
    for name, tables in (("z", entropy.z_tables), ("y", entropy.y_tables)):
        # The counts of all rows are joined, because the padding of `cdf` would be most of a small
        # model. A row has at least two bins, so no count reaches 2**16.
        rows = zip(tables.cdf, tables.length, strict=True)
        counts = np.concatenate([np.diff(row[:length]) for row, length in rows])
        arrays[f"{name}.counts"] = counts.astype(np.uint16)
        arrays |= {f"{name}.offset": tables.offset, f"{name}.length": tables.length}
    return arrays


def entropy_from_arrays(arrays: Mapping[str, np.ndarray]) -> EntropyModel:
    """Inverts `entropy_arrays`; raises a UserError for arrays that are not of an entropy model."""
    synthesis = integer_synthesis.from_arrays(
        {name.removeprefix(_EXACT): a for name, a in arrays.items() if name.startswith(_EXACT)}
    )
    hyper_channels = synthesis.mean.up0.kernel.shape[2] - len(synthesis.constants)
    z_tables = _tables("z", arrays, hyper_channels)
    return EntropyModel(z_tables, _tables("y", arrays, len(SCALE_TABLE)), synthesis)


def _tables(name: str, arrays: Mapping[str, np.ndarray], rows: int) -> Tables:
    counts = read(arrays, f"{name}.counts", np.uint16, None)
    offset, length = (read(arrays, f"{name}.{k}", np.int32, rows) for k in ("offset", "length"))
    # A row of more than 2**PRECISION bins cannot have that sum, and `cdf` would be huge.
    fits = np.all((length >= 3) & (length <= 2**PRECISION + 1))
    if not (fits and np.sum(length - 1) == len(counts)):
        raise unusable(f"{name}.length does not fit the other arrays")
    cdf = np.zeros((rows, int(length.max())), np.int32)
    for row, part in zip(cdf, np.split(counts, np.cumsum(length - 1)[:-1]), strict=True):
        row[1 : len(part) + 1] = np.cumsum(part, dtype=np.int32)
        if row[len(part)] != 2**PRECISION or np.any(part == 0):
            raise unusable(f"{name}.counts does not sum to {2**PRECISION}")
    return Tables(cdf, offset, length)
