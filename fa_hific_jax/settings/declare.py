"""Declaration of one setting, and the checks that hold its value.

A setting is a field of a frozen dataclass: its name and type, its default, the rule for its values
and its explanation. The config, the checks on load and docs/configuration.md follow from it.
"""

import dataclasses
import math
import numbers
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fa_hific_jax.errors import UserError


class Rule(NamedTuple):
    """Predicate of the values that a setting may have, and the sentence that asks for one."""

    allows: Callable[[Any], bool]
    wanted: str


ANY = Rule(lambda value: True, "")
POSITIVE = Rule(lambda value: value > 0, "it must be positive")
NOT_NEGATIVE = Rule(lambda value: value >= 0, "it must not be negative")
SHARE = Rule(lambda value: 0 <= value < 1, "it must be at least 0 and below 1")


def at_least(least: int) -> Rule:
    """Returns the rule that a number is `least` or more."""
    return Rule(lambda value: value >= least, f"it must be at least {least}")


def one_of(*choices: str) -> Rule:
    """Returns the rule that a string is one of `choices`."""
    return Rule(lambda value: value in choices, f"choose one of {', '.join(choices)}")


def some_of(*choices: str) -> Rule:
    """Returns the rule that a tuple holds only members of `choices`."""
    wanted = f"choose any of {', '.join(choices)}, as in ('{choices[0]}',), or () for none"
    return Rule(lambda value: set(value) <= set(choices), wanted)


def setting(default: Any, text: str, rule: Rule = ANY) -> Any:
    """Returns the dataclass field of a setting.

    Args:
      default: value in configs that do not change it. Its type is that of the field's annotation.
      text: explanation in Markdown, with the unit and the source of the default.
      rule: restriction of the values beyond their type.
    """
    return dataclasses.field(default=default, metadata={"text": text, "rule": rule})


def check(group: str, settings: Any) -> None:
    """Brings every field of `settings` to its declared type, and raises a UserError if it cannot.

    Lists become tuples. An int field takes whole numbers such as 1e3, a float field takes ints.
    Call this from `__post_init__` of the frozen dataclass whose settings are `group.key`.
    """
    for field in dataclasses.fields(settings):
        if "rule" in field.metadata:
            name = f"{group}.{field.name}" if group else field.name
            value = checked(name, field, getattr(settings, field.name))
            object.__setattr__(settings, field.name, value)


def build(kind: Any, group: str, values: Mapping[str, Any]) -> Any:
    """Returns the dataclass `kind` of a group's values as JSON or a config holds them.

    Raises a UserError for a value that makes no sense. The keys must be fields of `kind`.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    return kind(**{key: checked(f"{group}.{key}", fields[key], values[key]) for key in values})


def checked(name: str, field: dataclasses.Field, value: Any) -> Any:
    """Returns `value` in the type of `field`; raises a UserError if type or rule refuse it."""
    rule = field.metadata["rule"]
    try:
        converted = _converted(field.type, value)
    except ValueError:
        raise refusal(name, value, f"it must be {_described(field.type)}") from None
    if not rule.allows(converted):
        raise refusal(name, converted, rule.wanted)
    return converted


def refusal(name: str, value: Any, wanted: str) -> UserError:
    """Returns the error that names a setting, its value and what is wanted instead."""
    return UserError(f"{name} is {value!r}: {wanted}")


def _converted(kind: Any, value: Any) -> Any:
    """Returns `value` as `kind`; raises a ValueError if that would change it."""
    if typing.get_origin(kind) is tuple:
        return _tuple(typing.get_args(kind), value)
    if kind in (bool, str):
        fits = isinstance(value, kind)
    else:
        fits = isinstance(value, numbers.Real) and not isinstance(value, bool)
        fits = fits and math.isfinite(value) and kind(value) == value
    if not fits:
        raise ValueError
    return kind(value)


def _tuple(kinds: tuple[Any, ...], value: Any) -> tuple:
    if not isinstance(value, list | tuple):
        raise ValueError
    if kinds[-1] is ...:
        kinds = (kinds[0],) * len(value)
    return tuple(_converted(kind, item) for kind, item in zip(kinds, value, strict=True))


_NAMES = {int: "whole number", float: "finite number", str: "string", bool: "True or False"}
_EXAMPLES = {int: "3", float: "0.5", str: "'a'"}


def _described(kind: Any) -> str:
    """Returns the words for a type, as in "a tuple of 2 finite numbers, as in (0.5, 0.5)"."""
    if typing.get_origin(kind) is not tuple:
        return _NAMES[kind] if kind is bool else f"a {_NAMES[kind]}"
    kinds: Sequence[Any] = typing.get_args(kind)
    if kinds[-1] is ...:
        return f"a tuple of {_NAMES[kinds[0]]}s, as in ({_EXAMPLES[kinds[0]]},)"
    words = " and ".join(f"a {_NAMES[each]}" for each in kinds)
    return f"a tuple of {words}, as in ({', '.join(_EXAMPLES[each] for each in kinds)})"
