"""The log of a run: TensorBoard events, and the same numbers as lines of JSON."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from fa_hific_jax.checkpoints import is_there
from fa_hific_jax.errors import UserError
from fa_hific_jax.writing import write

FILE, FOLDER = "metrics.jsonl", "logs"


class Logs:
    """Scalars and pictures of a run, as a context that writes everything out at its end.

    Only process 0 writes. `FILE` has a line for each report, {"step": 20, "time": seconds since
    1970, "loss": ...}. A resumed run drops the reports of later steps than its `first_step`, which
    it makes again; TensorBoard is told to drop them as well.
    """

    def __init__(self, workdir: epath.Path, first_step: int = 0):
        self._path = workdir / FILE
        self._events = None
        if jax.process_index() == 0:
            _keep_until(self._path, first_step)
            self._events = _event_writer(workdir, first_step)

    def __enter__(self) -> "Logs":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if self._events is not None:
            self._events.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the metrics of a step."""
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
    """Returns the values of each step, in the order of steps, from a run's `FILE`.

    Lines that a crash cut off are left out. Of several lines of one step the last one counts. A
    UserError if there is no such file, or nothing in it.
    """
    path = workdir / FILE
    if not is_there(path):
        raise UserError(f"{workdir} holds no {FILE}: name the --workdir of a training run")
    reports = {values.pop("step"): values for values, _ in _reports(path.read_bytes().splitlines())}
    if not reports:
        raise UserError(f"{path} holds no line yet: wait for train.log_every steps")
    return dict(sorted(reports.items()))


def _keep_until(path: epath.Path, step: int) -> None:
    """Removes the lines of steps after `step` from a file, and those that a crash cut off."""
    if path.exists():
        before = path.read_bytes()
        kept = [line for values, line in _reports(before.splitlines()) if values["step"] <= step]
        after = b"".join(line + b"\n" for line in kept)
        if after != before:
            write(path, after)


def _reports(lines: Iterable[bytes]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yields (report, line) for each line that holds a report."""
    for line in lines:
        try:
            values = json.loads(line.decode(errors="replace"))
            yield values | {"step": int(values["step"])}, line
        except (ValueError, KeyError, TypeError):
            continue


def _event_writer(workdir: epath.Path, first_step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError(f"logging needs {error.name}: pip install 'fa-hific-jax[train]'") from error
    # TensorBoard then drops what earlier event files hold of later steps.
    return SummaryWriter(os.fspath(workdir / FOLDER), purge_step=first_step + 1)
