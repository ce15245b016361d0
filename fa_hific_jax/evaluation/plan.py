"""What an evaluation is made of: codecs, the points of each, and what tells them apart."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import baselines, candidates
from fa_hific_jax.evaluation.candidates import Candidate, Point

SAME_SIZE = "-same-size"
"""Behind a baseline's id: at the size of the first model's file, image by image. A codec of its
own, as a mean over such files, each of another quality, is no point of the baseline's curve."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to evaluate, and with what.

    Attributes:
      models: at least one, with distinct ids.
      qualities: of models with a variable rate; () for `candidates.QUALITIES`.
      details: of models with FCM; () for full detail.
      baselines: ids of classical codecs.
      baseline_points: qualities of each, spread over its `baselines.sweep`; 0 for all of them.
      same_size: each baseline also at the size of the first model's file, image by image.
      limit: how many images, the first ones; 0 for all.
      jobs: processes for the classical codecs.
    """

    models: Sequence[Candidate]
    qualities: tuple[float, ...] = ()
    details: tuple[float, ...] = ()
    baselines: tuple[str, ...] = ()
    baseline_points: int = 0
    same_size: bool = False
    limit: int = 0
    jobs: int = 1


class Task(NamedTuple):
    """A point of a codec, to be made of every image."""

    codec: str
    point: str
    fingerprint: str  # of everything that decides what comes out
    model: tuple[Candidate, Point] | None = None
    baseline: tuple[str, int | None] | None = None  # its id and quality, None for the same size


def codecs(plan: Plan) -> dict[str, dict[str, Any]]:
    """ "codecs" of the results: models, then classical codecs."""
    found = {candidate.id: candidate.describe() for candidate in plan.models}
    available = baselines.available()
    for name in plan.baselines:
        if name not in available:
            known = ", ".join(available)
            raise UserError(f"unknown baseline codec {name!r}: choose one of {known}")
        version = None if available[name] else baselines.version(name)
        entry = {
            "label": baselines.label(name),
            "kind": "baseline",
            "version": version,
            "settings": baselines.settings(name),
            "not_measured": available[name],
        }
        found[name] = entry
        if plan.same_size:
            label = f"{entry['label']} at the size of {plan.models[0].id}"
            found[name + SAME_SIZE] = entry | {"label": label}
    return found


def tasks(plan: Plan) -> list[Task]:
    """All points of all codecs, models first."""
    found = []
    for candidate in plan.models:
        for point in candidates.points(candidate.model, plan.qualities, plan.details):
            identity = candidate.fingerprint
            found.append(Task(candidate.id, point.name, identity, model=(candidate, point)))
    for name in plan.baselines:
        if baselines.available()[name]:
            continue
        identity = f"{baselines.version(name)} {baselines.settings(name)}"
        if plan.same_size:
            sizes = identity + found[0].fingerprint + found[0].point
            found.append(Task(name + SAME_SIZE, "", sizes, baseline=(name, None)))
        for quality in _spread(baselines.sweep(name), plan.baseline_points):
            found.append(Task(name, f"quality {quality}", identity, baseline=(name, quality)))
    return found


def _spread(values: Sequence[int], count: int) -> list[int]:
    """`count` of the values with both ends, all for 0."""
    if not count or count >= len(values):
        return list(values)
    return [values[i] for i in np.linspace(0, len(values) - 1, count).round().astype(int)]
