"""Settings: lossless as JSON, every mistake named with its mend, and no key that nothing reads."""

import ast
import dataclasses
import json
from pathlib import Path

import pytest

from configs import base, small
from fa_hific_jax import settings as settings_lib
from fa_hific_jax.errors import UserError
from fa_hific_jax.settings import OptimizerConfig, Settings, check_key, from_mapping, to_mapping

PACKAGE = Path(settings_lib.__file__).parent
GROUPS = {
    field.name: field.type
    for field in dataclasses.fields(Settings)
    if dataclasses.is_dataclass(field.type)
}
SINGLE = [field.name for field in dataclasses.fields(Settings) if field.name not in GROUPS]
FIELDS = [(name, field.name) for name, kind in GROUPS.items() for field in dataclasses.fields(kind)]


def mapping(**overrides):
    """configs/small.py as nested dicts; overrides are group__key=value or key=value."""
    config = small.get_config().to_dict()
    for key, value in overrides.items():
        group, _, field = key.partition("__")
        if field:
            config[group][field] = value
        else:
            config[key] = value
    return config


@pytest.mark.parametrize("config", [base, small])
def test_settings_survive_json(config):
    settings = from_mapping(config.get_config().to_dict())
    assert from_mapping(json.loads(json.dumps(to_mapping(settings)))) == settings


def test_settings_are_hashable_even_when_read_from_json():
    settings = from_mapping(json.loads(json.dumps(mapping())))
    assert hash(settings) == hash(from_mapping(mapping()))
    assert settings.data.train == ("dead_leaves:128", "photographs:train")


def test_base_config_has_exactly_the_keys_of_the_settings():
    config = base.get_config().to_dict()
    assert {(group, key) for group in GROUPS for key in config.pop(group)} == set(FIELDS)
    assert set(config) == set(SINGLE)


def test_unknown_key_is_answered_with_the_nearest_known_one():
    with pytest.raises(UserError, match=r"^unknown config key loss\.taget_bpp: did you mean "):
        from_mapping(mapping(loss__taget_bpp=1.0))
    with pytest.raises(UserError, match=r"did you mean loss\.target_bpp\?$"):
        from_mapping(mapping(loss__taget_bpp=1.0))


def test_unknown_key_near_to_none_is_answered_with_all_known_ones():
    known = ", ".join(field.name for field in dataclasses.fields(OptimizerConfig))
    with pytest.raises(UserError, match=rf"^unknown config key optimizer\.xyz: known: {known}$"):
        from_mapping(mapping(optimizer__xyz=1))


def test_unknown_group_is_named():
    with pytest.raises(UserError, match=r"^unknown config key modell: did you mean model\?$"):
        from_mapping(mapping() | {"modell": {}})


def test_missing_keys_and_groups_are_named():
    config = mapping()
    del config["train"]["seed"]
    sentence = r"^config key train\.seed is missing: configs/base\.py explains it$"
    with pytest.raises(UserError, match=sentence):
        from_mapping(config)
    del config["train"]
    with pytest.raises(UserError, match=r"^config key train is missing"):
        from_mapping(config)


def test_group_that_is_a_number_is_named():
    with pytest.raises(UserError, match=r"^config key 'loss' is 3: it must be a group of keys$"):
        from_mapping(mapping() | {"loss": 3})


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"model__fcm_width": 0}, r"^loss\.dsl is 0\.01 but model\.fcm_width is 0: .*loss\.dsl=0$"),
        (
            {"model__encoder_widths": (4, 4, 4, 4, 4)},
            r"^loss\.dsl compares .* begins with \(4, 4\) .* ends with \(16, 8\): mirror them$",
        ),
        ({"train__steps": 0}, r"^train\.steps is 0: it must be at least 1$"),
        ({"train__checkpoints_kept": -1}, r"^train\.checkpoints_kept is -1: it must be at least"),
        ({"model__generator_widths": (4, 4)}, r"^model\.generator_widths is \(4, 4\): give five"),
        ({"model__dtype": "half"}, r"^model\.dtype is 'half': choose one of float32, bfloat16$"),
        ({"model__hyper_rounding": "no"}, r"^model\.hyper_rounding is 'no': choose one of noise"),
        (
            {"trainable": ("fcm", "")},
            r"^trainable is \('fcm', ''\): give parts .* \('fcm', 'sigma'\), or",
        ),
        ({"data__train": ()}, r"^data\.train must name at least one source of images$"),
    ],
)
def test_values_that_make_no_sense_are_named_with_the_mend(overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        from_mapping(mapping(**overrides))


def test_terms_that_are_off_need_nothing():
    settings = from_mapping(
        mapping(loss__dsl=0.0, model__fcm_width=0, model__encoder_widths=(4, 4, 4, 4, 4))
    )
    assert settings.model.fcm_width == 0


def test_overridden_paths_are_checked_against_groups_and_keys():
    for group, key in FIELDS:
        check_key(group)
        check_key(f"{group}.{key}")
    for key in SINGLE:
        check_key(key)
    with pytest.raises(UserError, match=r"^unknown config key tain: did you mean train\?$"):
        check_key("tain.steps")
    with pytest.raises(UserError, match=r"^unknown config key train\.stesp: did you mean train\."):
        check_key("train.stesp")
    with pytest.raises(
        UserError, match=r"^unknown config key init_form: did you mean init_from\?$"
    ):
        check_key("init_form")
    with pytest.raises(
        UserError, match=r"^unknown config key trainable\.fcm: did you mean trainable"
    ):
        check_key("trainable.fcm")


def names_read() -> set[str]:
    """Attributes that the package reads, but for where the settings themselves are defined."""
    own = {kind.__name__ for kind in GROUPS.values()}
    read = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name == "settings.py":
            continue
        tree = ast.parse(path.read_text("utf-8"))
        tree.body = [node for node in tree.body if getattr(node, "name", None) not in own]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
    return read


def test_every_key_is_read_somewhere():
    read = names_read()
    assert [f"{group}.{key}" for group, key in FIELDS if key not in read] == []
    assert [key for key in SINGLE if key not in read] == []
