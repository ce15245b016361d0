"""What was asked for, from flags, config and the runs themselves, to what is evaluated."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from fa_hific_jax.data.sources import Source, open_source
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import baselines, candidates
from fa_hific_jax.evaluation.meter import Meter
from fa_hific_jax.evaluation.plan import Plan
from fa_hific_jax.settings import EvaluationConfig, Settings, to_mapping

DEFAULTS = EvaluationConfig(
    lpips_files=(),
    inception_file="",
    baselines=("jpeg", "webp"),
    baseline_points=0,
    same_size=False,
    untrained_control=False,
)
"""As in configs/base.py: for models that do not know the settings of their training."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Flags of eval.py; None where one was not given, so that the config decides.

    `baselines` may be ("all",) or ("none",).
    """

    images: str | None = None
    baselines: tuple[str, ...] | None = None
    baseline_points: int | None = None
    same_size: bool | None = None
    untrained_control: bool | None = None
    lpips_files: tuple[str, ...] | None = None
    inception_file: str | None = None
    qualities: tuple[float, ...] = ()
    details: tuple[float, ...] = ()
    limit: int = 0
    jobs: int = 1


class Prepared(NamedTuple):
    """The arguments of `evaluate`, but for the folder and the rest of `meta`."""

    plan: Plan
    source: Source
    meter: Meter
    images: str


def prepare(
    folders: Sequence[str], options: Options, given: Settings | None, called: str = "--models"
) -> Prepared:
    """Loads the models of these folders and all else that the evaluation needs.

    A flag goes before the config `given`, that before what the first model knows of its own run.

    Raises:
      UserError: no such model, images, baseline or weights, or a number out of its range.
    """
    _check(options)
    held = given if called == "--workdir" else None
    found = [candidates.load(folder, held, called) for folder in folders]
    known = to_mapping(given) if given else found[0].settings
    config = _config(known.get("evaluation", {}), options)
    if config.untrained_control and found[0].params is not None:
        found.append(candidates.untrained(found[0]))
    chosen = _baselines(config.baselines)
    taken = [*baselines.available(), "original"]
    plan = Plan(
        models=candidates.with_distinct_ids(found, taken),
        qualities=options.qualities,
        details=options.details,
        baselines=chosen,
        baseline_points=config.baseline_points,
        same_size=config.same_size,
        limit=options.limit,
        jobs=options.jobs,
    )
    _check_knobs(plan)
    data = known.get("data", {})
    images = options.images or data.get("evaluation")
    if not images:
        raise UserError("--images is missing: the model does not say on what it was evaluated")
    source = open_source(images, data.get("tfds_dir", ""))
    return Prepared(plan, source, Meter(config.lpips_files, config.inception_file), images)


def _config(known: dict[str, Any], options: Options) -> EvaluationConfig:
    """The group `evaluation`; a run of another version may know other keys."""
    names = [field.name for field in dataclasses.fields(EvaluationConfig)]
    stored = {name: known[name] for name in names if name in known}
    stored = {n: tuple(v) if isinstance(v, list) else v for n, v in stored.items()}
    flags = {n: v for n in names if (v := getattr(options, n, None)) is not None}
    return dataclasses.replace(DEFAULTS, **(stored | flags))


def _baselines(names: Sequence[str]) -> tuple[str, ...]:
    if tuple(names) == ("all",):
        return tuple(baselines.available())
    return () if tuple(names) == ("none",) else tuple(dict.fromkeys(names))


def _check(options: Options) -> None:
    for name, values in (("--quality", options.qualities), ("--detail", options.details)):
        if not all(0 <= value <= 1 for value in values):
            raise UserError(f"{name} is {values}: give numbers from 0 to 1")
    if options.limit < 0 or options.jobs < 1:
        raise UserError(
            f"--limit is {options.limit} and --jobs {options.jobs}: give a limit of at least 0 "
            "(all images) and at least one job"
        )


def _check_knobs(plan: Plan) -> None:
    """Raises a UserError for a knob that none of the models has."""
    configs = [candidate.model.config for candidate in plan.models]
    if plan.qualities and not any(config.qualities for config in configs):
        raise UserError("--quality: none of the models has a variable rate: leave it out")
    if plan.details and not any(config.fcm_width for config in configs):
        raise UserError("--detail: none of the models has FCM: leave it out")
