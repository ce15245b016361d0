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
from operator import itemgetter
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation.results import write_json

FOLDER = "shares"


@dataclasses.dataclass
class Share:
    """Work of one process."""

    # (number of the image, number of the point, entry of "rows" in the results)
    rows: list[tuple[int, int, dict[str, Any]]] = dataclasses.field(default_factory=list)
    # {"image", "reason"} of images that cannot be read
    skipped: list[dict[str, str]] = dataclasses.field(default_factory=list)
    # {"image", "codec", "point", "reason"} of what one codec could not do
    failed: list[dict[str, str]] = dataclasses.field(default_factory=list)


@contextmanager
def shared(out: Path) -> Iterator[Share]:
    """Yields an empty share; after the block, that of process 0 holds those of all, rows in order.

    Raises:
      UserError: in process 0, if the block of another process raised one.
    """
    share, process, count = Share(), jax.process_index(), jax.process_count()
    path = out / FOLDER / f"{process}.json"
    if count > 1:
        path.unlink(missing_ok=True)
        multihost_utils.sync_global_devices("evaluation: shares of earlier runs are gone")
    try:
        yield share
    except UserError as error:
        if process:
            write_json(path, {"error": str(error)})
        raise
    if process:
        write_json(path, vars(share))
        return
    for other in range(1, count):
        _add(share, path.with_name(f"{other}.json"))
    shutil.rmtree(out / FOLDER, ignore_errors=True)
    share.rows.sort(key=itemgetter(0, 1))


def _add(share: Share, path: Path) -> None:
    """Waits for the file of another process, and adds its share."""
    while not path.exists():
        time.sleep(0.2)
    found = json.loads(path.read_bytes())
    if "error" in found:
        raise UserError(f"process {path.stem} of the evaluation ended: {found['error']}")
    for name, mine in vars(share).items():
        mine += found[name]
