"""Codes and measures the same images with models and classical codecs, and writes the results."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from fa_hific_jax import metrics
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import files, literature, merging, results
from fa_hific_jax.evaluation.features import Features
from fa_hific_jax.evaluation.loop import Loop
from fa_hific_jax.evaluation.merging import Share
from fa_hific_jax.evaluation.prepare import Evaluation
from fa_hific_jax.evaluation.report import write_report
from fa_hific_jax.evaluation.results import Results
from fa_hific_jax.evaluation.rows import Row, RowLog


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
    mine = range(jax.process_index(), count, jax.process_count())
    with merging.own_share(out) as share:
        log, features = RowLog(out, jax.process_index()), Features(evaluation.weights, out)
        Loop(evaluation, out, log, features, share).run(mine, _say)
        log.close()
    if jax.process_index() > 0:
        return None
    merged = merging.gather(out, share)
    _check_something_is_left(merged, evaluation.images)
    rows = [row for *_, key in merged.keys if (row := log.get(key, features.measured_with))]
    if len(rows) < len(merged.keys):
        raise UserError(f"rows of another process are not in {out}: give an --out that all can see")
    entries = [dataclasses.asdict(row) for row in rows]
    for entry in entries:
        del entry["key"], entry["measured_with"]
    means = results.means(entries, merged.images)
    about = {"images": evaluation.images, "count": merged.images}
    about |= {"skipped": merged.skipped, "failed": merged.failed}
    sizes = {row.image: (row.width, row.height) for row in rows}
    content = {
        "meta": {**meta, **about},
        "codecs": evaluation.codecs,
        "metrics": _described(rows),
        "rows": entries,  # in the order of images, codecs and points
        "means": means,
        "sets": [entry for mean in means for entry in _sets(mean, rows, features)],
        "published": literature.for_images(literature.recognize(sizes)),
    }
    content = results.plain(content)
    results.write_json(out / "results.json", content)
    results.replace_file(out / "summary.csv", results.summary_csv(content).encode())
    write_report(content, out)
    return content


def _sets(mean: Mapping[str, Any], rows: Sequence[Row], features: Features) -> list[dict[str, Any]]:
    """Returns the metrics of sets of the images at the point of a mean."""
    point = {"codec": mean["codec"], "point": mean["point"]}
    of_point = [row for row in rows if (row.codec, row.point) == results.point_of(mean)]
    originals = [files.original_file(row.image) for row in of_point]
    entries = features.set_metrics(originals, [row.file for row in of_point])
    if len(of_point) < mean["images"]:
        reason = f"of {mean['images']} images only {len(of_point)} could be coded"
        entries = [entry | {"value": None, "not_measured": reason} for entry in entries]
    return [point | entry for entry in entries]


def _described(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Returns "metrics" of the results; a metric that no image has gets their common reason."""
    described = {}
    for name, about in metrics.DESCRIPTIONS.items():
        reasons = {row.not_measured.get(name) for row in rows}
        everywhere = reasons.pop() if len(reasons) == 1 else None
        described[name] = about | {"not_measured": everywhere}
    return described


def _check_something_is_left(merged: Share, named: str) -> None:
    if merged.keys:
        return
    if merged.failed:
        first = merged.failed[0]
        raise UserError(f"nothing could be coded: {first['image']}: {first['reason']}")
    reason = merged.skipped[0]["reason"] if merged.skipped else f"{named} is empty"
    raise UserError(f"no image could be read: {reason}")


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)
