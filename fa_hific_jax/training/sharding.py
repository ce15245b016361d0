"""Where arrays live: a one-axis mesh over all devices, batches split over it, state copied."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fa_hific_jax.errors import UserError


def data_mesh() -> Mesh:
    """All devices of all processes along the axis "data", those of a process side by side."""
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.asarray(devices), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The leading axis divided over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises a UserError where the global batch cannot be divided evenly over the devices."""
    if batch_size % mesh.size:
        raise UserError(
            f"train.batch_size is {batch_size}, which {mesh.size} devices cannot share evenly: "
            f"choose a multiple of {mesh.size}"
        )
