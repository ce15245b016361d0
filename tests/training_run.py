"""Training as processes of their own, which a test may spread over devices, stop and kill.

As a script, `training_run.py WORKDIR '{"train__steps": 3}'`: the smallest settings with overrides,
without TensorBoard's slow start. Environment variables say which of several processes it is.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from cpu_devices import hasty

ROOT = Path(__file__).resolve().parents[1]


def start(workdir, devices=1, variables=None, wrapper=(), **overrides) -> subprocess.Popen:
    """A running process with so many CPU devices, started by a command if one is given."""
    env = os.environ | hasty(devices) | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*wrapper, sys.executable, str(Path(__file__)), str(workdir), json.dumps(overrides)],
        cwd=ROOT,
        env=env | (variables or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_several(workdir, processes=2, devices=1, **overrides) -> list[subprocess.Popen]:
    """Running processes with so many CPU devices each, joined through the loopback device."""
    address = f"127.0.0.1:{free_port()}"
    known = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes)}
    return [
        start(workdir, devices, known | {"JAX_PROCESS_ID": str(index)}, **overrides)
        for index in range(processes)
    ]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def finish(process: subprocess.Popen, seconds: float = 900) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a process, killed when it takes too long."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out, err


def losses(workdir) -> dict[int, float]:
    """The loss by step."""
    lines = (Path(workdir) / "metrics.jsonl").read_text().splitlines()
    return {report["step"]: report["loss"] for report in map(json.loads, lines)}


if __name__ == "__main__":
    from unittest import mock

    from absl import logging
    from etils import epath
    from tiny_settings import tiny_settings

    from fa_hific_jax.errors import UserError, fail
    from fa_hific_jax.training import logs, processes
    from fa_hific_jax.training.loop import train

    logging.set_verbosity(logging.ERROR)
    logs._event_writer = mock.MagicMock()
    try:
        processes.join()
        train(tiny_settings(**json.loads(sys.argv[2])), epath.Path(sys.argv[1]))
    except UserError as error:
        fail(str(error))
