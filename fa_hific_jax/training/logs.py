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
        self._events.write_scalars(step, dict(values))
        line = json.dumps({"step": step, "time": round(time.time(), 3)} | dict(values))
        with self._path.open("a") as file:
            file.write(f"{line}\n")

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Writes stacks of pictures, uint8 (n, h, w, 1 or 3)."""
        if self._events is not None:
            self._events.write_images(step, dict(pictures))


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
    # TensorFlow greets with what nobody can act on; JAX has set a level that is too low.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = max("3", os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"))
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        import tensorflow as tf
        from clu import metric_writers
    except ImportError as error:
        raise UserError(f"logging needs {error.name}: pip install 'fa-hific-jax[train]'") from error
    tf.config.set_visible_devices([], "GPU")  # TensorFlow would take the memory that JAX needs.
    return metric_writers.create_default_writer(workdir, collection=FOLDER)
