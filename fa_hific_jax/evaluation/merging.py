"""Shares of several processes, which process 0 merges.

They are exchanged through files in the folder of the results, which all processes must see: one may
wait for hours on another, too long for a collective operation.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation.results import write_json

FOLDER = "shares"


@dataclasses.dataclass
class Share:
    """Work of one process."""

    images: int = 0  # number of images that could be read
    # (number of the image, number of the point, key of the row in the log)
    keys: list[tuple[int, int, str]] = dataclasses.field(default_factory=list)
    # {"image", "reason"} of images that cannot be read
    skipped: list[dict[str, str]] = dataclasses.field(default_factory=list)
    # {"image", "codec", "point", "reason"} of what one codec could not do
    failed: list[dict[str, str]] = dataclasses.field(default_factory=list)


@contextmanager
def own_share(out: Path) -> Iterator[Share]:
    """Yields an empty share, and gives it, or a UserError raised within, to process 0."""
    share = Share()
    if jax.process_count() == 1:
        yield share
        return
    path = _path(out, jax.process_index())
    path.unlink(missing_ok=True)
    multihost_utils.sync_global_devices("evaluation: shares of earlier runs are gone")
    try:
        yield share
    except UserError as error:
        write_json(path, {"error": str(error)})
        raise
    write_json(path, dataclasses.asdict(share))


def gather(out: Path, merged: Share) -> Share:
    """Waits for the other processes and adds their shares to that of process 0, keys in order.

    Raises:
      UserError: another process ended with one.
    """
    for process in range(1, jax.process_count()):
        while not _path(out, process).exists():
            time.sleep(0.2)
        found = json.loads(_path(out, process).read_bytes())
        if "error" in found:
            raise UserError(f"process {process} of the evaluation ended: {found['error']}")
        merged.images += found["images"]
        merged.keys += map(tuple, found["keys"])
        merged.skipped += found["skipped"]
        merged.failed += found["failed"]
    shutil.rmtree(out / FOLDER, ignore_errors=True)
    merged.keys.sort()
    return merged


def _path(out: Path, process: int) -> Path:
    return out / FOLDER / f"{process}.json"
