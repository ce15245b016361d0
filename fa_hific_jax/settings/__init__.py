"""Settings of a run, each declared once. A run converts its config to `Settings` at its start.

Each group of a config is a frozen dataclass, whose fields are the keys of the group. A field has a
default, an explanation and a rule for its values. `configs/base.py` makes the config from the
fields, and `python -m tools.configuration` makes the page docs/configuration.md.
"""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from fa_hific_jax.errors import UserError
from fa_hific_jax.fidelity.variants import LEGACY_SIDE
from fa_hific_jax.settings.data import DataConfig
from fa_hific_jax.settings.declare import Rule, build, check, checked, refusal, setting
from fa_hific_jax.settings.evaluation import EvaluationConfig
from fa_hific_jax.settings.loss import LossConfig
from fa_hific_jax.settings.model import DiscriminatorConfig, ModelConfig
from fa_hific_jax.settings.training import OptimizerConfig, TrainConfig


@dataclasses.dataclass(frozen=True)
class Settings:
    """All groups of a config, and the keys that belong to no group. The defaults are HiFiC's."""

    model: ModelConfig = ModelConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    init_from: str = setting(
        "",
        """Source of the initial parameters: the folder of an earlier stage, of imported weights, or
        of a model exported with --trainable; `"lite"` for the model that comes with the package,
        or the name of another model that `fa-hific get-model` has fetched; `""` for random
        parameters. A run that has checkpoints of its own continues from those instead.""",
    )
    trainable: tuple[str, ...] = setting(
        (),
        """Parts of the names of the parameters to train, as parameters.txt lists them:
        `("fcm", "sigma")`, `("discriminator",)`, `("autoencoder/encoder/",)`. All other parameters
        keep their values. () to train all.""",
        Rule(
            all,
            "give parts of parameter names, as in ('fcm', 'sigma'), or () to train everything",
        ),
    )

    def __post_init__(self):
        check("", self)
        _check_fcm(self)
        if bool(self.model.qualities) != (self.loss.rate_control == "quality"):
            raise UserError(
                f"model.qualities is {self.model.qualities} and loss.rate_control is "
                f"{self.loss.rate_control!r}: a model with gains needs 'quality', others cannot "
                "have it"
            )


def _check_fcm(settings: Settings) -> None:
    """Raises a UserError where losses or crops do not fit the model's FCMs."""
    model, loss, crop = settings.model, settings.loss, settings.data.crop
    if loss.detail_zero and not model.fcm_width:
        raise UserError(
            f"loss.detail_zero is {loss.detail_zero} but model.fcm_width is 0: there is no detail "
            "to leave out, so set a width or --config.loss.detail_zero=0"
        )
    if loss.dsl and not model.fcm_width:
        raise UserError(
            f"loss.dsl is {loss.dsl} but model.fcm_width is 0: the dynamic spectrum loss needs the "
            "FCM features, so set a width or --config.loss.dsl=0"
        )
    if model.fcm_width and model.fcm == "legacy" and crop != LEGACY_SIDE:
        raise UserError(
            f"data.crop is {crop} but model.fcm is 'legacy', which takes images of {LEGACY_SIDE} x "
            f"{LEGACY_SIDE} alone: set data.crop to {LEGACY_SIDE} or choose another model.fcm"
        )
    if loss.dsl and model.encoder_widths[:2] != model.generator_widths[:-3:-1]:
        raise UserError(
            "loss.dsl compares encoder and generator features of equal width, but "
            f"model.encoder_widths begins with {model.encoder_widths[:2]} and "
            f"model.generator_widths ends with {model.generator_widths[-2:]}: mirror them"
        )


def from_mapping(config: Mapping[str, Any]) -> Settings:
    """Returns the settings of nested mappings (`ConfigDict.to_dict()`, or parsed JSON).

    Raises:
      UserError: names the first key that is unknown or missing, or whose value makes no sense.
    """
    fields = _fields(Settings)
    _check_keys(config, fields, prefix="")
    return Settings(**{name: _value(field, config[name]) for name, field in fields.items()})


def to_mapping(settings: Settings) -> dict[str, Any]:
    """Returns nested plain dicts, ready for JSON; `from_mapping` reads them back."""
    return dataclasses.asdict(settings)


def declarations() -> Iterator[tuple[str, dataclasses.Field]]:
    """Yields (dotted name, field) of every setting, those without a group first."""
    fields = _fields(Settings)
    yield from ((name, field) for name, field in fields.items() if not _is_group(field.type))
    for group, field in fields.items():
        if _is_group(field.type):
            yield from ((f"{group}.{name}", key) for name, key in _fields(field.type).items())


def check_key(path: str, text: str | None = None) -> None:
    """Checks --config.PATH=TEXT of a command line, or PATH alone where TEXT is not yet known.

    Raises:
      UserError: no group or key is called `path`, or a number, True or False cannot be read from
        `text`.
    """
    group, _, key = path.partition(".")
    fields = _fields(Settings)
    _check_known(group, fields, prefix="")
    field = fields[group]
    if key and not _is_group(field.type):
        raise UserError(f"unknown config key {path}: did you mean {group}?")
    if key:
        _check_known(key, _fields(field.type), prefix=f"{group}.")
        field = _fields(field.type)[key]
    if text is not None and not _is_group(field.type):
        _check_text(path, field, text)


def _check_text(path: str, field: dataclasses.Field, text: str) -> None:
    """Raises a UserError where `text` is not what the command line takes for this key."""
    if field.type not in (int, float):
        return
    try:
        value = float(text)
    except ValueError:
        value = text
    checked(path, field, value)
    if field.type is int and not text.replace("_", "").lstrip("+-").isdecimal():
        raise refusal(
            path, text, f"write it without point or exponent, --config.{path}={value:.0f}"
        )


def _is_group(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind)


def _value(field: dataclasses.Field, values: Any) -> Any:
    """Returns a group of keys as its dataclass, the value of a single key in its type."""
    if not _is_group(field.type):
        return checked(field.name, field, values)
    if not isinstance(values, Mapping):
        raise UserError(f"config key {field.name!r} is {values!r}: it must be a group of keys")
    _check_keys(values, _fields(field.type), prefix=f"{field.name}.")
    return build(field.type, field.name, values)


def _fields(kind: Any) -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(kind)}


def _check_keys(config: Mapping[str, Any], known: Mapping[str, Any], prefix: str) -> None:
    for key in config:
        _check_known(key, known, prefix)
    for key in known:
        if key not in config:
            raise UserError(
                f"config key {prefix}{key} is missing: docs/configuration.md explains it"
            )


def _check_known(key: str, known: Mapping[str, Any], prefix: str) -> None:
    if key not in known:
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {prefix}{close[0]}?" if close else f"known: {', '.join(known)}"
        raise UserError(f"unknown config key {prefix}{key}: {hint}")
