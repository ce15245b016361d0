"""Settings: lossless as JSON, every mistake named with its fix, and no key that nothing reads."""

import ast
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
from fa_hific_jax.settings import check_key, declarations, from_mapping, to_mapping
from fa_hific_jax.training.terms import TERMS

PACKAGE = Path(settings_lib.__file__).parents[1]
KEYS = [name for name, _ in declarations()]
NUMBERS = [name for name, field in declarations() if field.type in (int, float)]
OTHERS = [name for name in KEYS if name not in NUMBERS]


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
def test_settings_survive_json_and_are_hashable(config):
    settings = from_mapping(config.get_config().to_dict())
    again = from_mapping(json.loads(json.dumps(to_mapping(settings))))
    assert again == settings and hash(again) == hash(settings)


MISTAKES = [
    ({"loss__taget_bpp": 1.0}, r"unknown .* loss\.taget_bpp: did you mean loss\.target_bpp\?$"),
    ({"optimizer__xyz": 1}, r"unknown .* optimizer\.xyz: known: kind, learning_rate, .*ema_decay$"),
    ({"modell": {}}, r"unknown config key modell: did you mean model\?$"),
    ({"loss": 3}, "config key 'loss' is 3: it must be a group of keys"),
    ({"train": {}}, r"config key train\.steps is missing"),
    ({"model__fcm_width": 0}, r"loss\.dsl is 0\.01: .* model\.fcm_width is 0: .*loss\.dsl=0$"),
    ({"model__encoder_widths": (4,) * 5}, r"loss\.dsl compares .* ends with \(16, 8\): mirror"),
    ({"loss__balance": "power", "loss__ffl": 0.0}, r"loss\.balance is 'power': .* to balance"),
    ({"model__fcm": "legacy", "model__generator_widths": (4, 4, 4)}, r"model\.fcm is .* give five"),
    ({"train__steps": 0}, r"train\.steps is 0: it must be at least 1$"),
    ({"train__steps": 1000.5}, r"train\.steps is 1000\.5: it must be a whole number$"),
    ({"model__generator_widths": (4, 4)}, r"model\.generator_widths is \(4, 4\): give five"),
    ({"model__dtype": "half"}, r"model\.dtype is 'half': choose one of float32, bfloat16$"),
    ({"trainable": ("fcm", "")}, r"trainable is \('fcm', ''\): give parts"),
    ({"data__train": ()}, r"data\.train is \(\): name at least one source of images$"),
]


@pytest.mark.parametrize(("overrides", "sentence"), MISTAKES)
def test_mistakes_are_named_with_the_fix(overrides, sentence):
    with pytest.raises(UserError, match=f"^{sentence}"):
        from_mapping(mapping(**overrides))


NO_NUMBERS = (math.nan, math.inf, -math.inf, True, "1", None, (1,), -1e9)
NEITHER_TEXT_NOR_TUPLES = (3, 0.5, None, {}, (None,), ("a", 1), [math.nan])


@pytest.mark.parametrize(
    ("name", "values"),
    [(name, NO_NUMBERS) for name in NUMBERS] + [(name, NEITHER_TEXT_NOR_TUPLES) for name in OTHERS],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_value_of_another_kind_or_far_from_sense_is_taken(name, values):
    for value in values:
        sentence = rf"^{re.escape(f'{name} is {value!r}')}: it must|^{name} is -1000000000.*: "
        with pytest.raises(UserError, match=sentence):
            from_mapping(mapping(**{name.replace(".", "__"): value}))


def test_whole_numbers_and_lists_get_the_declared_type():
    overrides = {"train__steps": 1e3, "loss__mse": 1, "data__weights": [1, np.float32(0.5)]}
    settings = from_mapping(mapping(**overrides))
    found = (settings.train.steps, settings.loss.mse, *settings.data.weights)
    assert found == (1000, 1.0, 1.0, 0.5)
    assert list(map(type, found)) == [int, float, float, float]


@pytest.mark.parametrize(
    ("key", "text", "sentence"),
    [
        ("train.steps", "1e3", "write it .* exponent, --config.train.steps=1000$"),
        ("train.steps", "many", "'many': it must be a whole number$"),
        ("train.steps", "inf", "inf: it must be a whole number$"),
        ("train.steps", "-5", "-5: it must be at least 1$"),
        ("optimizer.learning_rate", "nan", "it must be a finite"),
        ("optimizer.learning_rate", "-1", "it must be positive"),
    ],
)
def test_numbers_of_the_command_line_are_checked_before_they_are_parsed(key, text, sentence):
    with pytest.raises(UserError, match=rf"^{re.escape(key)} is .*{sentence}"):
        check_key(key, text)


def test_values_as_python_writes_them_are_taken_on_the_command_line():
    for key, text in {"train.steps": "1_000", "loss.mse": "1e-3", "data.train": "('a/',)"}.items():
        check_key(key, text)


def test_a_checkpoint_that_lacks_later_keys_has_their_defaults():
    given = from_mapping(mapping())
    stored = json.loads(json.dumps(to_mapping(given)))
    del stored["model"]["linear_path"], stored["model"]["qualities"]
    assert differences(stored, given, ["model", "discriminator"]) == []
    stored["model"]["dtype"] = "bfloat16"
    assert differences(stored, given, ["model"]) == [("model.dtype", "bfloat16", "float32")]
    del stored["model"]
    assert ("model.fcm", None, "hific") in differences(stored, given, ["model"])


def test_overridden_paths_are_checked_against_groups_and_keys():
    for key in KEYS:
        check_key(key)
        check_key(key.split(".")[0])
    wrong = {"tain.steps": "train", "train.stesp": "train.steps", "init_form": "init_from"}
    for path, meant in (wrong | {"trainable.fcm": "trainable"}).items():
        with pytest.raises(UserError, match=f"^unknown config key .*: did you mean {meant}\\?$"):
            check_key(path)


def test_every_key_is_read_somewhere():
    """As an attribute, outside of the declarations, or as the weight of a term."""
    read = {term.weight for term in TERMS}
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "settings":
            nodes = ast.walk(ast.parse(path.read_text("utf-8")))
            attributes = (node for node in nodes if isinstance(node, ast.Attribute))
            read |= {node.attr for node in attributes if isinstance(node.ctx, ast.Load)}
    assert [key for key in KEYS if key.split(".")[-1] not in read] == []
