"""Where arrays live: batches are split over all devices, the state is copied or split.

The mesh has two axes. Along "data" devices hold the same of the state; along "fsdp" each holds a
part of it (fully sharded data parallelism: Rajbhandari et al., "ZeRO", SC 2020), which XLA gathers
where a step needs the whole. Batches are split over both.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fa_hific_jax.errors import UserError

SMALLEST = 4096
"""Numbers in an array that is worth splitting; smaller ones are copied."""


def data_mesh(fsdp: int = 1) -> Mesh:
    """All devices of all processes, those of a process side by side, `fsdp` of them along "fsdp".

    Raises:
      UserError: `fsdp` does not divide the number of devices.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if len(devices) % fsdp:
        raise UserError(
            f"train.fsdp is {fsdp}, which does not divide the {len(devices)} devices: choose a "
            "divisor, or 1 for a full copy on each"
        )
    return Mesh(np.asarray(devices).reshape(-1, fsdp), ("data", "fsdp"))


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The leading axis divided over the devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def of_state(shapes: Any, mesh: Mesh) -> Any:
    """A sharding for each array of a state: its longest divisible axis split along "fsdp"."""
    parts = mesh.shape["fsdp"]

    def of(leaf: Any) -> NamedSharding:
        lengths = [length if length % parts == 0 else 0 for length in leaf.shape]
        if parts == 1 or leaf.size < SMALLEST or not any(lengths):
            return replicated(mesh)
        axis = int(np.argmax(lengths))
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "fsdp"))

    return jax.tree.map(of, shapes)


def gather(mesh: Mesh) -> Callable[[Any], Any]:
    """A function that gives a state as full copies; all processes must call it together."""
    if mesh.shape["fsdp"] == 1:
        return lambda state: state
    return jax.jit(lambda state: state, out_shardings=replicated(mesh))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises a UserError where the global batch cannot be divided evenly over the devices."""
    if batch_size % mesh.size:
        raise UserError(
            f"train.batch_size is {batch_size}, which {mesh.size} devices cannot share evenly: "
            f"choose a multiple of {mesh.size}"
        )
