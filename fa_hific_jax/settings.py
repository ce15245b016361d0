"""Every setting of a run, typed: what a config file turns into before anything starts.

Each group of `configs/base.py` is one frozen dataclass whose fields are exactly the keys of the
group, so a key that is misspelt, missing or read by nothing ends the run by name.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from fa_hific_jax.data.pipeline import DataConfig
from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.dynamic_spectrum import WEIGHTINGS
from fa_hific_jax.losses.gan import KINDS
from fa_hific_jax.models.autoencoder import ModelConfig
from fa_hific_jax.models.discriminator import DiscriminatorConfig
from fa_hific_jax.models.fcm import LEGACY_SIDE

BALANCES = ("fixed", "gradient", "bands", "power")
"""Values of `loss.balance`: see `training/balance.py`."""

RATE_CONTROLS = ("switch", "controller", "quality")
"""Values of `loss.rate_control`: see `training/controller.py`."""


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights, targets and options of the losses: group `loss`, explained in configs/base.py."""

    target_bpp: float
    lambda_above: float
    lambda_below: float
    rate_control: str
    control_steps: int
    control_gain: float
    warmup_steps: int
    warmup_lambda: float
    warmup_target: float
    mse: float
    lpips: float
    lpips_file: str
    gan: float
    gan_kind: str
    ffl: float
    ffl_alpha: float
    ffl_patch_factor: int
    ffl_ave_spectrum: bool
    ffl_log_matrix: bool
    ffl_batch_matrix: bool
    dsl: float
    dsl_alpha: float
    dsl_kernel_size: int
    dsl_legacy_kernel: bool
    dsl_weighting: str
    dsl_sigma: float
    dsl_sigma_learned: bool
    dsl_sigma_pairwise: bool
    detail_zero: float
    balance: str
    balance_share: float

    def __post_init__(self):
        if not 0 <= self.detail_zero < 1:
            raise UserError(
                f"loss.detail_zero is {self.detail_zero}: it must be at least 0 and below 1"
            )
        if self.balance != "fixed" and not self.ffl:
            raise UserError(
                f"loss.balance is {self.balance!r} but loss.ffl is 0: there is nothing to balance, "
                "so set loss.ffl or loss.balance='fixed'"
            )
        if self.balance_share <= 0:
            raise UserError(f"loss.balance_share is {self.balance_share}: it must be positive")
        for field, choices in (
            ("gan_kind", KINDS),
            ("dsl_weighting", WEIGHTINGS),
            ("rate_control", RATE_CONTROLS),
            ("balance", BALANCES),
        ):
            if getattr(self, field) not in choices:
                raise UserError(
                    f"loss.{field} is {getattr(self, field)!r}: choose one of {', '.join(choices)}"
                )
        if self.rate_control == "controller":
            positive = ("target_bpp", "lambda_above", "lambda_below", "warmup_target")
            for field in (*positive, "control_steps", "control_gain"):
                if getattr(self, field) <= 0:
                    raise UserError(
                        f"loss.{field} is {getattr(self, field)}: "
                        "loss.rate_control='controller' needs it to be positive"
                    )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam or Muon, and their learning rate: group `optimizer`."""

    kind: str
    learning_rate: float
    discriminator_learning_rate: float
    warmup_steps: int
    drop_steps: tuple[int, ...]
    drop_factor: float
    clip_norm: float
    ema_decay: float

    def __post_init__(self):
        if self.kind not in ("adam", "muon"):
            raise UserError(f"optimizer.kind is {self.kind!r}: choose one of adam, muon")
        if not 0 <= self.ema_decay < 1:
            raise UserError(
                f"optimizer.ema_decay is {self.ema_decay}: it must be at least 0 and below 1"
            )


BEST_BY = ("", "loss", "eval/loss", "eval/psnr", "eval/bpp")
"""Values of `train.keep_best`: "loss" is the training loss, averaged since the last log line."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length and rhythm of the training run: group `train`."""

    steps: int
    batch_size: int
    accumulate: int
    fsdp: int
    recompute: bool
    max_nonfinite: int
    seed: int
    log_every: int
    summary_every: int
    checkpoint_every: int
    checkpoint_minutes: float | int
    checkpoints_kept: int
    keep_best: str
    evaluate_every: int

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("checkpoint_minutes", "evaluate_every"):
                if value < 0:
                    raise UserError(f"train.{field.name} is {value}: it must not be negative")
            elif field.name not in ("seed", "keep_best", "recompute") and value < 1:
                raise UserError(f"train.{field.name} is {value}: it must be at least 1")
        if self.keep_best not in BEST_BY:
            raise UserError(
                f"train.keep_best is {self.keep_best!r}: choose one of {', '.join(BEST_BY[1:])}, "
                "or '' to keep none for its quality"
            )
        every = self.evaluate_every
        if self.keep_best.startswith("eval/") and (not every or self.checkpoint_every % every):
            raise UserError(
                f"train.keep_best is {self.keep_best!r} but train.evaluate_every is {every}: "
                f"choose a divisor of train.checkpoint_every={self.checkpoint_every}, so that "
                "every checkpoint is measured"
            )
        if self.batch_size % self.accumulate:
            raise UserError(
                f"train.batch_size is {self.batch_size}, which train.accumulate={self.accumulate} "
                "does not divide: choose a divisor"
            )


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What eval.py measures and beside what: group `evaluation`; flags of eval.py go before."""

    lpips_files: tuple[str, ...] = ()
    inception_file: str = ""
    baselines: tuple[str, ...] = ("jpeg", "webp")
    baseline_points: int = 0
    same_size: bool = False
    untrained_control: bool = False

    def __post_init__(self):
        if self.baseline_points < 0:
            raise UserError(
                f"evaluation.baseline_points is {self.baseline_points}: give a number of qualities "
                "to spread over each codec's range, or 0 for all"
            )


@dataclasses.dataclass(frozen=True)
class Settings:
    """All groups of a config, and the keys that stand beside them."""

    model: ModelConfig
    discriminator: DiscriminatorConfig
    data: DataConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    evaluation: EvaluationConfig
    init_from: str
    trainable: tuple[str, ...]

    def __post_init__(self):
        model = self.model
        if not all(self.trainable):
            raise UserError(
                f"trainable is {self.trainable}: give parts of parameter names, "
                "as in ('fcm', 'sigma'), or () to train everything"
            )
        if bool(model.qualities) != (self.loss.rate_control == "quality"):
            raise UserError(
                f"model.qualities is {model.qualities} and loss.rate_control is "
                f"{self.loss.rate_control!r}: a model with gains needs 'quality', others cannot "
                "have it"
            )
        if self.loss.detail_zero and not model.fcm_width:
            raise UserError(
                f"loss.detail_zero is {self.loss.detail_zero} but model.fcm_width is 0: there is "
                "no detail to leave out, so set a width or --config.loss.detail_zero=0"
            )
        if self.loss.dsl and not model.fcm_width:
            raise UserError(
                f"loss.dsl is {self.loss.dsl} but model.fcm_width is 0: the dynamic spectrum loss "
                "needs the FCM features, so set a width or --config.loss.dsl=0"
            )
        if model.fcm_width and model.fcm == "legacy" and self.data.crop != LEGACY_SIDE:
            raise UserError(
                f"data.crop is {self.data.crop} but model.fcm is 'legacy', which takes images of "
                f"{LEGACY_SIDE} x {LEGACY_SIDE} alone: set data.crop to {LEGACY_SIDE} or choose "
                "another model.fcm"
            )
        if self.loss.dsl and model.encoder_widths[:2] != model.generator_widths[:-3:-1]:
            raise UserError(
                "loss.dsl compares encoder and generator features of equal width, but "
                f"model.encoder_widths begins with {model.encoder_widths[:2]} and "
                f"model.generator_widths ends with {model.generator_widths[-2:]}: mirror them"
            )


def from_mapping(config: Mapping[str, Any]) -> Settings:
    """Settings of a config as nested mappings (`ConfigDict.to_dict()`, or parsed JSON).

    Raises:
      UserError: names the first key that is unknown or missing, or whose value makes no sense.
    """
    fields = _fields(Settings)
    _check_keys(config, fields, prefix="")
    return Settings(**{name: _value(kind, config[name], name) for name, kind in fields.items()})


def to_mapping(settings: Settings) -> dict[str, Any]:
    """Nested plain dicts, ready for JSON; `from_mapping` reads them back."""
    return dataclasses.asdict(settings)


def check_key(path: str) -> None:
    """Raises a UserError unless a config has the group or key `path`, as in "loss.mse"."""
    group, _, key = path.partition(".")
    fields = _fields(Settings)
    _check_known(group, fields, prefix="")
    if key and not _is_group(fields[group]):
        raise UserError(f"unknown config key {path}: did you mean {group}?")
    if key:
        _check_known(key, _fields(fields[group]), prefix=f"{group}.")


def _is_group(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind)


def _value(kind: Any, values: Any, name: str) -> Any:
    """A group of keys as its dataclass, the value of a single key as it is."""
    if not _is_group(kind):
        return _tuples(values)
    if not isinstance(values, Mapping):
        raise UserError(f"config key {name!r} is {values!r}: it must be a group of keys")
    fields = _fields(kind)
    _check_keys(values, fields, prefix=f"{name}.")
    return kind(**{key: _tuples(values[key]) for key in fields})


def _fields(kind) -> dict[str, Any]:
    return {field.name: field.type for field in dataclasses.fields(kind)}


def _check_keys(config: Mapping[str, Any], known: Mapping[str, Any], prefix: str) -> None:
    for key in config:
        _check_known(key, known, prefix)
    for key in known:
        if key not in config:
            raise UserError(f"config key {prefix}{key} is missing: configs/base.py explains it")


def _check_known(key: str, known: Mapping[str, Any], prefix: str) -> None:
    if key not in known:
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {prefix}{close[0]}?" if close else f"known: {', '.join(known)}"
        raise UserError(f"unknown config key {prefix}{key}: {hint}")


def _tuples(value):
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value
