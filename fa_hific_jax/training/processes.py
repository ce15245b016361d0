"""Runs of several processes: how they find each other, and which of them prints."""

import contextlib
import glob
import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import Any

import jax

from fa_hific_jax.errors import UserError

FLAGS = ("--coordinator", "--processes", "--process")
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join(coordinator: str = "", processes: int | None = None, process: int | None = None) -> None:
    """Joins the other processes of this run, if there are any, before anything else uses JAX.

    Their description comes from, in order of precedence:
      1. the arguments: host:port of process 0, their number, the number of this one;
      2. the environment variables of `VARIABLES`, which mean the same;
      3. a SLURM step of several tasks (one task for each GPU), or a TPU machine.

    A UserError if it is incomplete or makes no sense, or the others cannot be reached.
    """
    # Collective operations on CPUs; the default of some releases of JAX cannot cross processes.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    arguments = explicit(coordinator, processes, process, os.environ)
    if arguments is None and not _in_slurm_step(os.environ) and not _on_tpu():
        return
    try:
        jax.distributed.initialize(**arguments or {})
    except (RuntimeError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise UserError(
            f"this process cannot join the others of the run: {said}: check --coordinator, "
            "--processes and --process, and that all processes were started"
        ) from error


def explicit(
    coordinator: str, processes: int | None, process: int | None, environment: Mapping[str, str]
) -> dict[str, Any] | None:
    """Returns the arguments for `jax.distributed.initialize`, None where none were given."""
    given = dict(zip(FLAGS, (coordinator, processes, process), strict=True))
    if all(value in ("", None) for value in given.values()):
        given = {name: environment.get(name) for name in VARIABLES}
    missing = [name for name, value in given.items() if value in ("", None)]
    if len(missing) == len(given):
        return None
    if missing:
        raise UserError(f"{missing[0]} is missing: several processes need {', '.join(given)}")
    told = ", ".join(f"{name} {value}" for name, value in given.items())
    address, *numbers = map(str, given.values())
    try:
        count, index, port = map(int, (*numbers, address.rpartition(":")[2]))
    except ValueError as error:
        raise UserError(f"{told}: give host:port and two whole numbers") from error
    if not 0 <= index < count or not 0 < port < 65536:
        raise UserError(
            f"{told}: processes are numbered from 0 to one less than their number, ports from 1 to "
            "65535"
        )
    return {"coordinator_address": address, "num_processes": count, "process_id": index}


def leads() -> bool:
    """Returns whether this is process 0, which writes logs and prints."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """Prints a line in process 0."""
    if leads():
        tell(text)


def warn(text: str) -> None:
    """Prints a line to standard error in process 0."""
    if leads():
        tell(f"warning: {text}", error=True)


def tell(text: str, *, error: bool = False) -> None:
    """Prints a line if it can: a closed terminal or pipe must not end a run of days."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr if error else sys.stdout, flush=True)


def _in_slurm_step(environment: Mapping[str, str]) -> bool:
    return environment.get("SLURM_STEP_NUM_TASKS") not in (None, "", "1")


def _on_tpu() -> bool:
    devices = glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
    return bool(devices) and importlib.util.find_spec("libtpu") is not None
