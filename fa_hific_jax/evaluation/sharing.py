"""Evaluation by several processes: each has its share of the images, the first one merges.

What they tell each other goes through files in the folder of the results, which all must see: a
process may wait for hours on another, which is too long for a collective operation.
"""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation.results import write_json

FOLDER = "shares"
_SECONDS_BETWEEN_LOOKS = 0.2


def mine(count: int) -> range:
    """The numbers of this process's images, of `count`: every n-th, so that shares are alike."""
    return range(jax.process_index(), count, jax.process_count())


@contextmanager
def begin(out: Path) -> Iterator[None]:
    """Within, what earlier runs left has gone; the other processes hear of a UserError."""
    if jax.process_count() == 1:
        yield
        return
    path = _path(out, jax.process_index())
    path.unlink(missing_ok=True)
    multihost_utils.sync_global_devices("evaluation: shares of earlier runs are gone")
    try:
        yield
    except UserError as error:
        write_json(path, {"error": str(error)})
        raise


def hand_in(out: Path, share: dict[str, Any]) -> None:
    """Gives this process's share to the first one."""
    write_json(_path(out, jax.process_index()), share)


def gather(out: Path, own: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """All shares, by process; waits until the others have handed theirs in.

    Raises:
      UserError: one of them could not.
    """
    others = [_wait_for(out, process) for process in range(1, jax.process_count())]
    if others:
        shutil.rmtree(out / FOLDER, ignore_errors=True)
    return [own, *others]


def _wait_for(out: Path, process: int) -> dict[str, Any]:
    path = _path(out, process)
    while not path.exists():
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    share = json.loads(path.read_bytes())
    if "error" in share:
        raise UserError(f"process {process} of the evaluation ended: {share['error']}")
    return share


def _path(out: Path, process: int) -> Path:
    return out / FOLDER / f"{process}.json"
