"""Models and classical codecs over the same images: coded, measured, written down, as one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from fa_hific_jax import metrics
from fa_hific_jax.data.sources import Source
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import plan as plans
from fa_hific_jax.evaluation import published, results, sharing
from fa_hific_jax.evaluation.meter import Meter
from fa_hific_jax.evaluation.plan import Plan
from fa_hific_jax.evaluation.report import write_report
from fa_hific_jax.evaluation.results import Results
from fa_hific_jax.evaluation.share import Share, features_file, original_file

_OF_THE_JOURNAL = ("key", "measured_with")


def evaluate(
    plan: Plan, source: Source, meter: Meter, out: Path, meta: Mapping[str, Any]
) -> Results | None:
    """Results of everything in the plan, which is also written to `out`.

    Every rate is that of the bytes of a file that was decoded again. What an earlier run with the
    same `out` has finished is not computed again. `out` then holds originals/, reconstructions/,
    bits/, rows.jsonl, results.json, summary.csv and report.html. With several processes each takes
    every n-th image and writes its rows; the first one waits for all of them, merges, and writes
    the rest; the others return None.

    Args:
      plan: models and classical codecs.
      source: images; those that cannot be read are skipped and named.
      meter: metrics.
      out: a folder, on a disk that all processes see.
      meta: of the results, beside what this function adds to it.

    Raises:
      UserError: no image could be read, nothing could be coded, or `out` cannot be written to.
    """
    codecs, tasks = plans.codecs(plan), plans.tasks(plan)
    count = min(plan.limit or len(source), len(source))
    with sharing.begin(out):
        share = Share(tasks, source, meter, out)
        share.run(sharing.mine(count), plan.jobs, _say)
        own = results.plain(share.content())
        if jax.process_index() > 0:
            sharing.hand_in(out, own)
            return None
    merged = _assembled(sharing.gather(out, own), codecs, meter, out, meta)
    _check_something_is_left(merged)
    results.write_json(out / "results.json", merged)
    results.replace_file(out / "summary.csv", results.summary_csv(merged).encode())
    write_report(results.read_results(out / "results.json"), out)
    return merged


def _assembled(
    shares: Sequence[Mapping[str, Any]],
    codecs: dict[str, Any],
    meter: Meter,
    out: Path,
    meta: Mapping[str, Any],
) -> Results:
    """All shares as one, rows in the order of images, codecs and points."""
    numbered = sorted((entry for share in shares for entry in share["rows"]), key=lambda e: e[:2])
    rows = [{k: v for k, v in row.items() if k not in _OF_THE_JOURNAL} for *_, row in numbered]
    skipped, failed = (
        [entry for share in shares for entry in share[name]] for name in ("skipped", "failed")
    )
    images = sum(share["images"] for share in shares)
    means = results.means(rows, images)
    sizes = {row["image"]: (row["width"], row["height"]) for row in rows}
    return {
        "meta": {**meta, "count": images, "skipped": skipped, "failed": failed},
        "codecs": codecs,
        "metrics": _described(rows),
        "rows": rows,
        "means": means,
        "sets": [entry for mean in means for entry in _sets(mean, rows, meter, out)],
        "published": published.for_images(published.recognise(sizes)),
    }


def _sets(
    mean: Mapping[str, Any], rows: Sequence[results.Row], meter: Meter, out: Path
) -> list[dict[str, Any]]:
    """Metrics of the set of images that a point of a codec has made."""
    point = {"codec": mean["codec"], "point": mean["point"]}
    of_point = [row for row in rows if point.items() <= row.items()]
    entries = meter.sets(
        [out / features_file(original_file(row["image"])) for row in of_point],
        [out / features_file(row["file"]) for row in of_point],
    )
    if len(of_point) < mean["images"]:
        reason = f"of {mean['images']} images only {len(of_point)} could be coded"
        entries = [entry | {"value": None, "not_measured": reason} for entry in entries]
    return [point | entry for entry in entries]


def _described(rows: Sequence[results.Row]) -> dict[str, dict[str, Any]]:
    """ "metrics" of the results; where no image has one, with the reason if they share it."""
    described = {}
    for name, about in metrics.DESCRIPTIONS.items():
        reasons = {row["not_measured"].get(name) for row in rows}
        everywhere = reasons.pop() if len(reasons) == 1 else None
        described[name] = about | {"not_measured": everywhere}
    return described


def _check_something_is_left(merged: Results) -> None:
    meta = merged["meta"]
    if merged["rows"]:
        return
    if meta["failed"]:
        first = meta["failed"][0]
        raise UserError(f"nothing could be coded: {first['image']}: {first['reason']}")
    reasons = [entry["reason"] for entry in meta["skipped"]]
    told = reasons[0] if reasons else f"{meta['images']} is empty"
    raise UserError(f"no image could be read: {told}")


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)
