"""Sharding: batches are split over all devices, the state is replicated or split.

The mesh has two axes. Devices along "data" hold the same part of the state. Devices along "fsdp"
hold different parts (fully sharded data parallelism: Rajbhandari et al., "ZeRO", SC 2020), which
XLA gathers when a step needs the whole. Batches are split over both axes.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fa_hific_jax.errors import UserError

SMALLEST = 4096  # number of elements from which an array is split


def data_mesh(fsdp: int = 1, batch_size: int = 0) -> Mesh:
    """Returns a mesh of all devices, those of a process side by side, `fsdp` along "fsdp".

    A UserError if the devices cannot share `fsdp` or the whole `batch_size` evenly.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    count = len(devices)
    if count % fsdp:
        raise UserError(
            f"train.fsdp is {fsdp}, which does not divide the {count} devices: choose a divisor, "
            "or 1 for a full copy on each"
        )
    if batch_size % count:
        raise UserError(
            f"train.batch_size is {batch_size}, which {count} devices cannot share evenly: choose "
            f"a multiple of {count}"
        )
    return Mesh(np.asarray(devices).reshape(-1, fsdp), ("data", "fsdp"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays of which every device has a full copy."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of batches: the leading axis is split over all devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def of_state(shapes: Any, mesh: Mesh) -> Any:
    """Returns each array's sharding: the longest divisible axis is split over "fsdp"."""
    parts = mesh.shape["fsdp"]

    def sharding(leaf: Any) -> NamedSharding:
        lengths = [length if length % parts == 0 else 0 for length in leaf.shape]
        if parts == 1 or leaf.size < SMALLEST or not any(lengths):
            return replicated(mesh)
        return NamedSharding(mesh, PartitionSpec(*[None] * int(np.argmax(lengths)), "fsdp"))

    return jax.tree.map(sharding, shapes)


def gather(mesh: Mesh) -> Callable[[Any], Any]:
    """Returns a function that replicates a state; all processes must call it together."""
    if mesh.shape["fsdp"] == 1:
        return lambda state: state
    return jax.jit(lambda state: state, out_shardings=replicated(mesh))
