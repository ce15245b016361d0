"""Declaration of one setting, and the checks that hold its value.

A setting is a field of a frozen dataclass: its name and type, its default and the rule for its
values. The string below it explains it in Markdown, with its unit and the source of the default.
The config, the checks on load and docs/configuration.md follow from these.
"""

import dataclasses
import math
import numbers
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

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


def setting(default: Any, rule: Rule = ANY) -> Any:
    """Returns the dataclass field of a setting: its default, and what its type does not say."""
    return dataclasses.field(default=default, metadata={"rule": rule})


@dataclasses.dataclass(frozen=True)
class Group:
    """Base of a group of settings, which brings every field to its declared type.

    Lists become tuples. An int field takes whole numbers such as 1e3, a float field takes ints. A
    subclass gives the name of its group: `class DataConfig(Group, name="data")`. A value that its
    type or rule refuses raises a UserError.
    """

    _prefix: ClassVar[str]

    def __init_subclass__(cls, name: str = "") -> None:
        cls._prefix = f"{name}." if name else ""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if "rule" in field.metadata:
                value = checked(self._prefix + field.name, field, getattr(self, field.name))
                object.__setattr__(self, field.name, value)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Any:
        """Returns the group with these values, of which JSON and configs may change the types."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        return cls(**{key: checked(cls._prefix + key, fields[key], values[key]) for key in values})

    def require(self, allowed: Any, key: str, wanted: str) -> None:
        """Raises a UserError that asks for another value of `key` unless `allowed` is true."""
        if not allowed:
            raise refusal(self._prefix + key, getattr(self, key), wanted)


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
        if not isinstance(value, list | tuple):
            raise ValueError
        kinds = typing.get_args(kind)
        kinds = kinds[:1] * len(value) if kinds[-1] is ... else kinds
        return tuple(_converted(each, item) for each, item in zip(kinds, value, strict=True))
    if kind in (bool, str):
        fits = isinstance(value, kind)
    else:
        fits = isinstance(value, numbers.Real) and not isinstance(value, bool)
        fits = fits and math.isfinite(value) and kind(value) == value
    if not fits:
        raise ValueError
    return kind(value)


_WORDS = {bool: "True or False", int: "a whole number", float: "a finite number", str: "a string"}


def _described(kind: Any) -> str:
    """Returns the words for a type, as in "a tuple (a finite number, ...)"."""
    if typing.get_origin(kind) is not tuple:
        return _WORDS[kind]
    return f"a tuple ({', '.join(_WORDS.get(each, '...') for each in typing.get_args(kind))})"
