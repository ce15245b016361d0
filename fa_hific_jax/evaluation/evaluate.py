"""Codes and measures the same images with models and classical codecs, and writes the results."""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from fa_hific_jax import metrics
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import literature, results
from fa_hific_jax.evaluation.loop import Loop, Share
from fa_hific_jax.evaluation.prepare import Evaluation
from fa_hific_jax.evaluation.report import write_report
from fa_hific_jax.evaluation.results import Results, write_json
from fa_hific_jax.evaluation.rows import RowLog


def evaluate(evaluation: Evaluation, out: Path, meta: Mapping[str, Any]) -> Results | None:
    """Codes and measures every image at every point, and writes and returns the results.

    What an earlier run with the same `out` has finished is not computed again. With several
    processes, which all see `out`, each takes every n-th image. Process 0 waits for all of them and
    writes the results; the others return None. An image that cannot be read is skipped and named
    in the results. `meta` becomes "meta" of the results, with what this function adds. Raises a
    UserError if no image could be read or nothing could be coded.
    """
    count = min(evaluation.limit or len(evaluation.source), len(evaluation.source))
    process = jax.process_index()
    with shared(out) as share:
        loop = Loop(evaluation, out, RowLog(out, process), share)
        loop.run(range(process, count, jax.process_count()))
    if process > 0:
        return None
    rows, images = [row for *_, row in share.rows], count - len(share.skipped)
    if not rows and share.failed:
        first = share.failed[0]
        raise UserError(f"nothing could be coded: {first['image']}: {first['reason']}")
    if not rows:
        reason = share.skipped[0]["reason"] if share.skipped else f"{evaluation.images} is empty"
        raise UserError(f"no image could be read: {reason}")
    about, described = {"images": evaluation.images, "count": images}, {}
    for name, metric in metrics.DESCRIPTIONS.items():
        first, *others = {row["not_measured"].get(name) for row in rows}
        # A metric that no image has gets their common reason.
        described[name] = metric | {"not_measured": None if others else first}
    sizes = {row["image"]: (row["width"], row["height"]) for row in rows}
    content = results.plain(
        {
            "meta": {**meta, **about, "skipped": share.skipped, "failed": share.failed},
            "codecs": evaluation.codecs,
            "metrics": described,
            "rows": rows,  # in the order of images, codecs and points
            "means": results.means(rows, images),
            "sets": loop.sets(rows, images),
            "published": literature.for_images(literature.recognize(sizes)),
        }
    )
    write_json(out / "results.json", content)
    results.replace_file(out / "summary.csv", results.summary_csv(content).encode())
    write_report(content, out)
    return content


@contextmanager
def shared(out: Path) -> Iterator[Share]:
    """Yields an empty share; after the block, that of process 0 holds those of all, rows in order.

    They are exchanged through files in `out`: one process may wait for hours on another, too long
    for a collective operation. A UserError of another process is raised in process 0 too.
    """
    share, process, count = Share(), jax.process_index(), jax.process_count()
    path = out / "shares" / f"{process}.json"
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
        path = path.with_name(f"{other}.json")
        while not path.exists():
            time.sleep(0.2)
        found = json.loads(path.read_bytes())
        if "error" in found:
            raise UserError(f"process {other} of the evaluation ended: {found['error']}")
        for name, mine in vars(share).items():
            mine += found[name]
    shutil.rmtree(path.parent, ignore_errors=True)
    share.rows.sort(key=itemgetter(0, 1))
