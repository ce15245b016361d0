"""Settings: lossless as JSON, every mistake named with its fix, and no key that nothing reads."""

import ast
import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from configs import base, small
from fa_hific_jax import settings as settings_lib
from fa_hific_jax.checkpoints import differences
from fa_hific_jax.errors import UserError
from fa_hific_jax.settings import (
    OptimizerConfig,
    Settings,
    check_key,
    declarations,
    from_mapping,
    to_mapping,
)
from fa_hific_jax.training.terms import TERMS

PACKAGE = Path(settings_lib.__file__).parents[1]
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
    sentence = r"^config key train\.seed is missing: docs/configuration\.md explains it$"
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
        ({"data__train": ()}, r"^data\.train is \(\): name at least one source of images$"),
    ],
)
def test_values_that_make_no_sense_are_named_with_the_mend(overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        from_mapping(mapping(**overrides))


NUMBERS = [name for name, field in declarations() if field.type in (int, float)]
OTHERS = [name for name, field in declarations() if name not in NUMBERS]


def changed(name, value):
    """The small config with one key changed, "loss.mse" or "init_from"."""
    return mapping(**{name.replace(".", "__"): value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "1", None, (1,), -1e9])
@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_is_taken_from_what_is_none_or_far_from_sense(name, value):
    sentence = rf"^{re.escape(f'{name} is {value!r}')}: it must|^{name} is -1000000000.*: "
    with pytest.raises(UserError, match=sentence):
        from_mapping(changed(name, value))


@pytest.mark.parametrize("value", [3, 0.5, None, {}, (None,), ("a", 1), [math.nan]])
@pytest.mark.parametrize("name", OTHERS)
def test_strings_tuples_and_truth_values_are_taken_from_nothing_else(name, value):
    with pytest.raises(UserError, match=rf"^{re.escape(f'{name} is {value!r}')}: it must be "):
        from_mapping(changed(name, value))


def test_whole_numbers_and_lists_get_the_declared_type():
    overrides = {"train__steps": 1e3, "loss__mse": 1, "data__weights": [1, np.float32(0.5)]}
    settings = from_mapping(mapping(**overrides))
    found = (settings.train.steps, settings.loss.mse, settings.data.weights)
    assert found == (1000, 1.0, (1.0, 0.5))
    assert list(map(type, (*found[:2], *found[2]))) == [int, float, float, float]
    with pytest.raises(UserError, match=r"^train\.steps is 1000\.5: it must be a whole number$"):
        from_mapping(mapping(train__steps=1000.5))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1e3", r"^train\.steps is '1e3': write it .* exponent, --config\.train\.steps=1000$"),
        ("many", r"^train\.steps is 'many': it must be a whole number$"),
        ("inf", r"^train\.steps is inf: it must be a whole number$"),
        ("-5", r"^train\.steps is -5: it must be at least 1$"),
    ],
)
def test_numbers_of_the_command_line_are_checked_before_they_are_parsed(text, sentence):
    check_key("train.steps", "1_000")
    check_key("loss.mse", "1e-3")
    check_key("data.train", "('images/',)")
    with pytest.raises(UserError, match=sentence):
        check_key("train.steps", text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("nan", "a finite"),
        ("inf", "a finite"),
        ("-1", "positive"),
        ("0", "positive"),
        ("x", "a fin"),
    ],
)
@pytest.mark.parametrize("name", ["learning_rate", "discriminator_learning_rate"])
def test_learning_rates_without_sense_are_refused(name, text, wanted):
    with pytest.raises(UserError, match=rf"^optimizer\.{name} is .*: it must be {wanted}"):
        check_key(f"optimizer.{name}", text)


def test_a_checkpoint_that_lacks_later_keys_has_their_defaults():
    given = from_mapping(mapping())
    stored = json.loads(json.dumps(to_mapping(given)))
    del stored["model"]["linear_path"], stored["model"]["qualities"]
    assert differences(stored, given, ["model", "discriminator"]) == []
    stored["model"]["dtype"] = "bfloat16"
    assert differences(stored, given, ["model"]) == [("model.dtype", "bfloat16", "float32")]
    del stored["model"]
    assert ("model.fcm", None, "hific") in differences(stored, given, ["model"])


def test_there_are_at_most_75_keys():
    assert len(list(declarations())) <= 75


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
    """Attributes that the package reads outside of the declarations, and the weights of terms."""
    read = {term.weight for term in TERMS}
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "settings":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
    return read


def test_every_key_is_read_somewhere():
    read = names_read()
    assert [f"{group}.{key}" for group, key in FIELDS if key not in read] == []
    assert [key for key in SINGLE if key not in read] == []
