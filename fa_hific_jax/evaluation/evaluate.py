"""Models and classical codecs over the same images: coded, measured, written down, as one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from fa_hific_jax import metrics
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import features, images, literature, merging, results
from fa_hific_jax.evaluation.loop import Loop
from fa_hific_jax.evaluation.merging import Share
from fa_hific_jax.evaluation.prepare import Evaluation
from fa_hific_jax.evaluation.report import write_report
from fa_hific_jax.evaluation.results import Results
from fa_hific_jax.evaluation.rows import Row, RowLog
from fa_hific_jax.metrics import Weights


def evaluate(evaluation: Evaluation, out: Path, meta: Mapping[str, Any]) -> Results | None:
    """Codes and measures every image at every point, and writes and returns the results.

    Every rate is that of the bytes of a file that was decoded again. What an earlier run with the
    same `out` has finished is not computed again. `out` then holds originals/, reconstructions/,
    bits/, rows.jsonl, results.json, summary.csv and report.html. With several processes each takes
    every n-th image and writes its rows; the first one waits for all of them, merges, and writes
    the rest; the others return None.

    Args:
      evaluation: codecs, points, images and weights; images that cannot be read are skipped and
        named.
      out: a folder, on a disk that all processes see.
      meta: "meta" of the results, to which this function adds.

    Raises:
      UserError: no image could be read, nothing could be coded, or `out` cannot be written to.
    """
    count = min(evaluation.limit or len(evaluation.source), len(evaluation.source))
    mine = range(jax.process_index(), count, jax.process_count())
    with merging.begin(out):
        log = RowLog(out, jax.process_index())
        loop = Loop(evaluation, out, log)
        share = loop.run(mine, _say)
        log.close()
        if jax.process_index() > 0:
            merging.hand_in(out, share)
            return None
    merged = merging.gather(out, share)
    _check_something_is_left(merged, evaluation.images)
    log.refresh()
    rows = [row for *_, key in merged.keys if (row := log.get(key, loop.measured_with))]
    if len(rows) < len(merged.keys):
        raise UserError(f"rows of another process are not in {out}: give an --out that all can see")
    meta = {**meta, "images": evaluation.images}
    content = results.plain(_assembled(evaluation, merged, rows, out, meta))
    results.write_json(out / "results.json", content)
    results.replace_file(out / "summary.csv", results.summary_csv(content).encode())
    write_report(content, out)
    return content


def _assembled(
    evaluation: Evaluation, merged: Share, rows: Sequence[Row], out: Path, meta: Mapping[str, Any]
) -> Results:
    """Returns the content of results.json, rows in the order of images, codecs and points."""
    entries = [row.entry() for row in rows]
    means = results.means(entries, merged.images)
    sizes = {row.image: (row.width, row.height) for row in rows}
    done = {"count": merged.images, "skipped": merged.skipped, "failed": merged.failed}
    return {
        "meta": {**meta, **done},
        "codecs": evaluation.codecs,
        "metrics": _described(rows),
        "rows": entries,
        "means": means,
        "sets": [e for mean in means for e in _sets(mean, rows, evaluation.weights, out)],
        "published": literature.for_images(literature.recognise(sizes)),
    }


def _sets(
    mean: Mapping[str, Any], rows: Sequence[Row], weights: Weights, out: Path
) -> list[dict[str, Any]]:
    """Returns the metrics of the set of images that a point of a codec has made."""
    point = {"codec": mean["codec"], "point": mean["point"]}
    of_point = [row for row in rows if (row.codec, row.point) == (mean["codec"], mean["point"])]
    originals = [images.original_file(row.image) for row in of_point]
    decoded = [row.file for row in of_point]
    entries = features.set_metrics(weights, out, originals, decoded)
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
    reasons = [entry["reason"] for entry in merged.skipped]
    raise UserError(f"no image could be read: {reasons[0] if reasons else f'{named} is empty'}")


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)
