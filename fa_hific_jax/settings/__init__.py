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
from fa_hific_jax.settings.declare import Group, Rule, checked, refusal, setting
from fa_hific_jax.settings.evaluation import EvaluationConfig
from fa_hific_jax.settings.loss import LossConfig
from fa_hific_jax.settings.model import DiscriminatorConfig, ModelConfig
from fa_hific_jax.settings.training import OptimizerConfig, TrainConfig


@dataclasses.dataclass(frozen=True)
class Settings(Group):
    """All groups of a config, and the keys that belong to no group. The defaults are HiFiC's."""

    model: ModelConfig = ModelConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    init_from: str = setting("")
    """Source of the initial parameters: the folder of an earlier stage, of imported weights, or of
    a model exported with --trainable; `"lite"` for the model that comes with the package, or the
    name of another model that `fa-hific get-model` has fetched; `""` for random parameters. A run
    that has checkpoints of its own continues from those instead."""
    trainable: tuple[str, ...] = setting(
        (),
        Rule(
            all,
            "give parts of parameter names, as in ('fcm', 'sigma'), or () to train everything",
        ),
    )
    """Parts of the names of the parameters to train, as parameters.txt lists them: `("fcm",
    "sigma")`, `("discriminator",)`, `("autoencoder/encoder/",)`. All other parameters keep their
    values. () to train all."""

    def __post_init__(self):
        super().__post_init__()
        model, loss, crop = self.model, self.loss, self.data.crop
        for name, value in (("detail_zero", loss.detail_zero), ("dsl", loss.dsl)):
            if value and not model.fcm_width:
                wanted = "it needs FCMs, but model.fcm_width is 0: set a width, or --config."
                raise refusal(f"loss.{name}", value, f"{wanted}loss.{name}=0")
        if model.fcm_width and model.fcm == "legacy" and crop != LEGACY_SIDE:
            wanted = f"model.fcm='legacy' takes images of {LEGACY_SIDE} x {LEGACY_SIDE} alone: set"
            raise refusal("data.crop", crop, f"{wanted} {LEGACY_SIDE} or another model.fcm")
        if loss.dsl and model.encoder_widths[:2] != model.generator_widths[:-3:-1]:
            raise UserError(
                "loss.dsl compares encoder and generator features of equal width, but "
                f"model.encoder_widths begins with {model.encoder_widths[:2]} and "
                f"model.generator_widths ends with {model.generator_widths[-2:]}: mirror them"
            )
        if bool(model.qualities) != (loss.rate_control == "quality"):
            raise UserError(
                f"model.qualities is {model.qualities} and loss.rate_control is "
                f"{loss.rate_control!r}: a model with gains needs 'quality', others cannot have it"
            )


def from_mapping(config: Mapping[str, Any]) -> Settings:
    """Returns the settings of nested mappings (`ConfigDict.to_dict()`, or parsed JSON).

    A UserError names the first key that is unknown or missing, or whose value makes no sense.
    """
    _check_keys(config, Settings)
    values = {}
    for name, field in _fields(Settings).items():
        kind: Any = field.type
        if _is_group(kind):
            _check_keys(config[name], kind, name)
            values[name] = kind.read(config[name])
        else:
            values[name] = checked(name, field, config[name])
    return Settings(**values)


def to_mapping(settings: Settings) -> dict[str, Any]:
    """Returns nested plain dicts, ready for JSON; `from_mapping` reads them back."""
    return dataclasses.asdict(settings)


def declarations() -> Iterator[tuple[str, dataclasses.Field]]:
    """Yields (dotted name, field) of every setting, those without a group first."""
    fields = _fields(Settings)
    for name, field in sorted(fields.items(), key=lambda item: _is_group(item[1].type)):
        if _is_group(field.type):
            yield from ((f"{name}.{key}", each) for key, each in _fields(field.type).items())
        else:
            yield name, field


def check_key(path: str, text: str | None = None) -> None:
    """Checks --config.PATH=TEXT of a command line, or PATH alone where TEXT is not yet known.

    A UserError if no group or key is called `path`, or the text of a number makes no sense.
    """
    group, _, key = path.partition(".")
    field = _known(group, _fields(Settings))
    if key and not _is_group(field.type):
        raise UserError(f"unknown config key {path}: did you mean {group}?")
    if key:
        field = _known(key, _fields(field.type), f"{group}.")
    if text is None or field.type not in (int, float):
        return
    try:
        value = float(text)
    except ValueError:
        value = text
    checked(path, field, value)
    if field.type is int and not text.replace("_", "").lstrip("+-").isdecimal():
        wanted = f"write it without point or exponent, --config.{path}={value:.0f}"
        raise refusal(path, text, wanted)


def _is_group(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind)


def _fields(kind: Any) -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(kind)}


def _check_keys(values: Any, kind: Any, group: str = "") -> None:
    """Raises a UserError unless `values` is a mapping with exactly the keys of `kind`."""
    if not isinstance(values, Mapping):
        raise UserError(f"config key {group!r} is {values!r}: it must be a group of keys")
    fields, prefix = _fields(kind), f"{group}." if group else ""
    for key in values:
        _known(key, fields, prefix)
    for key in fields:
        if key not in values:
            raise UserError(f"config key {prefix}{key} is missing: see docs/configuration.md")


def _known(key: str, fields: Mapping[str, Any], prefix: str = "") -> dataclasses.Field:
    """Returns the field of a key; raises a UserError with a hint if there is none."""
    if key not in fields:
        close = difflib.get_close_matches(key, fields, n=1)
        hint = f"did you mean {prefix}{close[0]}?" if close else f"known: {', '.join(fields)}"
        raise UserError(f"unknown config key {prefix}{key}: {hint}")
    return fields[key]
