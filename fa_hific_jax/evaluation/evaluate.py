"""Codes and measures the same images with models and classical codecs, and writes the results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from fa_hific_jax import metrics
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import files, literature, loop, results
from fa_hific_jax.evaluation.features import Features
from fa_hific_jax.evaluation.merging import Share, shared
from fa_hific_jax.evaluation.prepare import Evaluation
from fa_hific_jax.evaluation.report import write_report
from fa_hific_jax.evaluation.results import Results, point_of
from fa_hific_jax.evaluation.rows import RowLog

Entries = Sequence[Mapping[str, Any]]


def evaluate(evaluation: Evaluation, out: Path, meta: Mapping[str, Any]) -> Results | None:
    """Codes and measures every image at every point, and writes and returns the results.

    Every rate is that of the bytes of a file that was decoded again. What an earlier run with the
    same `out` has finished is not computed again. `out` then holds originals/, reconstructions/,
    bits/, rows.jsonl, results.json, summary.csv and report.html. With several processes each takes
    every n-th image and writes its rows. Process 0 waits for all of them, merges, and writes the
    rest; the others return None.

    An image that cannot be read is skipped and named in the results. `out` is on a disk that all
    processes see. `meta` becomes "meta" of the results, with what this function adds.

    Raises:
      UserError: no image could be read, nothing could be coded, or `out` cannot be written to.
    """
    count = min(evaluation.limit or len(evaluation.source), len(evaluation.source))
    process, features = jax.process_index(), Features(evaluation.weights, out)
    with shared(out) as share:
        running = loop.Loop(evaluation, out, RowLog(out, process), features, share)
        running.run(range(process, count, jax.process_count()))
    if process > 0:
        return None
    _check_something_is_left(share, evaluation.images)
    rows, images = [row for *_, row in share.rows], count - len(share.skipped)
    means = results.means(rows, images)
    about = {"images": evaluation.images, "count": images}
    about |= {"skipped": share.skipped, "failed": share.failed}
    sizes = {row["image"]: (row["width"], row["height"]) for row in rows}
    content = results.plain(
        {
            "meta": {**meta, **about},
            "codecs": evaluation.codecs,
            "metrics": _described(rows),
            "rows": rows,  # in the order of images, codecs and points
            "means": means,
            "sets": [entry for mean in means for entry in _sets(mean, rows, features)],
            "published": literature.for_images(literature.recognize(sizes)),
        }
    )
    results.write_json(out / "results.json", content)
    results.replace_file(out / "summary.csv", results.summary_csv(content).encode())
    write_report(content, out)
    return content


def _sets(mean: Mapping[str, Any], rows: Entries, features: Features) -> list[dict[str, Any]]:
    """Returns the metrics of sets of the images at the point of a mean."""
    of_point = [row for row in rows if point_of(row) == point_of(mean)]
    originals = [files.original_file(row["image"]) for row in of_point]
    entries = features.set_metrics(originals, [row["file"] for row in of_point])
    if len(of_point) < mean["images"]:
        reason = f"of {mean['images']} images only {len(of_point)} could be coded"
        entries = [entry | {"value": None, "not_measured": reason} for entry in entries]
    return [{"codec": mean["codec"], "point": mean["point"]} | entry for entry in entries]


def _described(rows: Entries) -> dict[str, dict[str, Any]]:
    """Returns "metrics" of the results; a metric that no image has gets their common reason."""
    described = {}
    for name, about in metrics.DESCRIPTIONS.items():
        first, *others = {row["not_measured"].get(name) for row in rows}
        described[name] = about | {"not_measured": None if others else first}
    return described


def _check_something_is_left(share: Share, named: str) -> None:
    if share.rows:
        return
    if share.failed:
        first = share.failed[0]
        raise UserError(f"nothing could be coded: {first['image']}: {first['reason']}")
    reason = share.skipped[0]["reason"] if share.skipped else f"{named} is empty"
    raise UserError(f"no image could be read: {reason}")
