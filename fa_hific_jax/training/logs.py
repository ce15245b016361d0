"""What a run writes down while it goes: TensorBoard events, and the same numbers as JSON lines."""

import json
import os
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from fa_hific_jax.errors import UserError

FILE = "metrics.jsonl"
FOLDER = "logs"


class Logs:
    """Scalars and pictures of a run, as a context that writes everything out at its end.

    Only the first of several processes writes. `FILE` has a line for each report, {"step": 20,
    "time": seconds since 1970, "loss": ...}; a resumed run adds to it, so a step may come twice, of
    which the later line counts.
    """

    def __init__(self, workdir: epath.Path):
        self._path = workdir / FILE
        self._events = _event_writer(workdir) if jax.process_index() == 0 else None

    def __enter__(self) -> "Logs":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if self._events is not None:
            self._events.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers of a step."""
        if self._events is None:
            return
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        line = json.dumps({"step": step, "time": round(time.time(), 3)} | dict(values))
        with self._path.open("a") as file:
            file.write(f"{line}\n")

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Writes stacks of pictures, uint8 (n, h, w, 1 or 3), each stack as one sheet."""
        if self._events is not None:
            for name, stack in pictures.items():
                self._events.add_images(name, stack, step, dataformats="NHWC")


def read_scalars(workdir: epath.Path) -> dict[int, dict[str, float]]:
    """Values by step, in the order of steps, of a run's `FILE`; half-written lines are left out.

    Raises:
      UserError: there is no such file, or nothing in it.
    """
    path = workdir / FILE
    if not path.is_file():
        raise UserError(f"{workdir} holds no {FILE}: name the --workdir of a training run")
    reports = {}
    for line in path.read_bytes().decode(errors="replace").splitlines():
        try:
            values = json.loads(line)
            reports[int(values.pop("step"))] = values
        except (ValueError, AttributeError, KeyError, TypeError):  # cut off by a crash
            continue
    if not reports:
        raise UserError(f"{path} holds no line yet: wait for train.log_every steps")
    return dict(sorted(reports.items()))


def _event_writer(workdir: epath.Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError(f"logging needs {error.name}: pip install 'fa-hific-jax[train]'") from error
    return SummaryWriter(os.fspath(workdir / FOLDER))
