"""Loads and checks everything that an evaluation needs, as the command line asks for it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from fa_hific_jax import metrics
from fa_hific_jax.data.sources import Source, open_source, unique
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import baselines, points
from fa_hific_jax.metrics import Weights
from fa_hific_jax.settings import EvaluationConfig, Settings, to_mapping


@dataclasses.dataclass(frozen=True)
class Request:
    """Models, images and options of an evaluation, as the command line gives them."""

    folders: Sequence[str]  # runs and exported models
    named_by: str = "--models"  # the flag that names them; or "--workdir", "--compare"
    config: Settings | None = None  # given with --config
    # Fields of `EvaluationConfig` given as flags; `baselines` may be ("all",) or ("none",).
    evaluation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    images: str | None = None  # folder, glob or data set; by default `data.evaluation`
    qualities: tuple[float, ...] = ()  # of models with a variable rate; () for `points.RATES`
    details: tuple[float, ...] = ()  # of models with FCM; () for full detail
    limit: int = 0  # number of images, the first ones; 0 for all
    jobs: int = 1  # number of threads for the classical codecs

    def __post_init__(self):
        for name, values in (("--quality", self.qualities), ("--detail", self.details)):
            if not all(0 <= value <= 1 for value in values):
                raise UserError(f"{name} is {values}: give numbers from 0 to 1")
        if self.limit < 0 or self.jobs < 1:
            raise UserError(
                f"--limit is {self.limit} and --jobs {self.jobs}: give a limit of at least 0 "
                "(all images) and at least one job"
            )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Everything that `evaluate` needs."""

    codecs: dict[str, dict[str, Any]]  # entries of the results by id, models first
    points: Sequence[points.Point]  # what is done with every image, those of models first
    source: Source
    images: str  # how the user named the source
    weights: Weights  # of the metrics
    limit: int = 0
    jobs: int = 1


def prepare(request: Request) -> Evaluation:
    """Loads the models, images and weights that a request names.

    A flag takes precedence over --config, which takes precedence over the settings that the first
    model knows of its own run. Raises a UserError if something is missing or out of its range.
    """
    held = request.config if request.named_by == "--workdir" else None
    models = [points.load(f, request.named_by, held) for f in request.folders]
    known = to_mapping(request.config) if request.config else models[0].settings
    # Keys of a run that this version does not know are ignored.
    names = {field.name for field in dataclasses.fields(EvaluationConfig)}
    stored = {name: v for name, v in known.get("evaluation", {}).items() if name in names}
    config = EvaluationConfig.read({**stored, **request.evaluation})
    if config.untrained_control and models[0].params is not None:
        models.append(points.untrained(models[0]))
    ids = unique((model.id for model in models), taken=[*baselines.available(), "original"])
    models = [dataclasses.replace(model, id=name) for model, name in zip(models, ids, strict=True)]
    if request.qualities and not any(model.model.config.qualities for model in models):
        raise UserError("--quality: none of the models has a variable rate: leave it out")
    if request.details and not any(model.model.config.fcm_width for model in models):
        raise UserError("--detail: none of the models has FCM: leave it out")
    codecs = {model.id: model.describe() for model in models}
    found = [p for m in models for p in points.of_model(m, request.qualities, request.details)]
    named = {"all": tuple(baselines.available()), "none": ()}
    for name in dict.fromkeys(named.get(",".join(config.baselines), config.baselines)):
        count, same_size = config.baseline_points, config.same_size
        entries, of_baseline = points.of_baseline(name, count, same_size, found[0])
        codecs |= entries
        found += of_baseline
    data = known.get("data", {})
    images = request.images or data.get("evaluation")
    if not images:
        raise UserError("--images is missing: the model does not say on what it was evaluated")
    return Evaluation(
        codecs=codecs,
        points=found,
        source=open_source(images, data.get("tfds_dir", "")),
        images=images,
        weights=metrics.load_weights(config.lpips_files, config.inception_file or None),
        limit=request.limit,
        jobs=request.jobs,
    )
