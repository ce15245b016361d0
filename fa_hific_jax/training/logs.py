"""The log of a run: TensorBoard events, and the same numbers as lines of JSON."""

import json
import os
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from fa_hific_jax.errors import UserError
from fa_hific_jax.writing import write

FILE = "metrics.jsonl"
FOLDER = "logs"


class Logs:
    """Scalars and pictures of a run, as a context that writes everything out at its end.

    Only process 0 writes. `FILE` has a line for each report, {"step": 20, "time": seconds since
    1970, "loss": ...}. A resumed run drops the reports of later steps than its `first_step`, which
    it makes again, so that each step has one line; TensorBoard is told to drop them as well.
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
    """Returns the values of each step, in the order of steps, from a run's `FILE`.

    Lines that a crash cut off are left out. Of several lines of one step the last one counts.

    Raises:
      UserError: there is no such file, or nothing in it.
    """
    path = workdir / FILE
    if not path.is_file():
        raise UserError(f"{workdir} holds no {FILE}: name the --workdir of a training run")
    reports = {}
    for line in path.read_bytes().splitlines():
        values = _parsed(line)
        if values is not None:
            reports[values.pop("step")] = values
    if not reports:
        raise UserError(f"{path} holds no line yet: wait for train.log_every steps")
    return dict(sorted(reports.items()))


def _keep_until(path: epath.Path, step: int) -> None:
    """Removes the lines of steps after `step` from a file, and those that a crash cut off."""
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if (values := _parsed(line)) and values["step"] <= step]
    if kept != lines or not all(line.endswith(b"\n") for line in kept):
        write(path, b"".join(line.rstrip(b"\n") + b"\n" for line in kept))


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Returns the report that a line holds, None where it holds none."""
    try:
        values = json.loads(line.decode(errors="replace"))
        return values | {"step": int(values["step"])}
    except (ValueError, KeyError, TypeError):
        return None


def _event_writer(workdir: epath.Path, first_step: int) -> Any:
    # TensorFlow greets with what nobody can act on; JAX has set a level that is too low.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = max("3", os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"))
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        import tensorflow as tf
        from clu import metric_writers
    except ImportError as error:
        raise UserError(f"logging needs {error.name}: pip install 'fa-hific-jax[train]'") from error
    tf.config.set_visible_devices([], "GPU")  # TensorFlow would take the memory that JAX needs.
    _note_session(tf, workdir / FOLDER, first_step + 1)
    return metric_writers.create_default_writer(workdir, collection=FOLDER)


def _note_session(tf: Any, folder: epath.Path, step: int) -> None:
    """Tells TensorBoard to drop what earlier event files hold of `step` and of later steps.

    TensorBoard does so at each event `SessionLog.START` but the first (tensorflow/core/util/
    event.proto). The name of the file sorts after those of earlier starts, which TensorBoard reads
    in the order of names, and before that of the writer that follows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    v1, now = tf.compat.v1, time.time()
    log = v1.SessionLog(status=v1.SessionLog.START)
    events = [
        v1.Event(wall_time=now, file_version="brain.Event:2"),
        v1.Event(wall_time=now, step=step, session_log=log),
    ]
    name = os.fspath(folder / f"events.out.tfevents.{int(now):010d}")
    with tf.io.TFRecordWriter(name) as file:
        for event in events:
            file.write(event.SerializeToString())
