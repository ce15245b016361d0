"""Pickles read without running them: a stack machine for plain values that calls nothing named.

`pickle.loads` imports and calls whatever a file names. Here the opcodes are parsed by the standard
library's `pickletools`, and executed on a stack of plain values. A name becomes a `Global`, which
is no more than its text; it may only be one that the caller allows, and "calling" it hands the
arguments to the caller's own function of that name, or stores them in a `Record`.
"""

import io
import pickletools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fa_hific_jax.errors import UserError

_VALUES = set(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NOTHING = {"PROTO", "FRAME", "STOP"}
_MARK = object()


class Global(NamedTuple):
    """A name in a pickle, nothing that was imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Record:
    """What a pickle says about an object of a class that is never imported: name and state."""

    def __init__(self, kind: str, arguments: tuple):
        self.kind = kind
        self.arguments = arguments
        self.state: dict[str, Any] = {}


class Names(NamedTuple):
    """What the globals of a pickle may be, by dotted name.

    `functions` stand in for callables, `values` for what is only mentioned; instances of classes
    for which `inert` is true become `Record`s.
    """

    functions: Mapping[str, Callable[..., Any]]
    values: Mapping[str, Any]
    inert: Callable[[Global], bool]


def load(stream: io.BytesIO, names: Names, persistent: Callable[[Any], Any]) -> Any:
    """The next object pickled in a stream, made of plain containers, numbers and text.

    `persistent` turns persistent ids into objects.

    Raises:
      UserError: the pickle names a global that is not allowed.
      ValueError, TypeError, LookupError, OverflowError, AttributeError: it is damaged.
    """
    machine = _Machine(names, persistent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of odd escapes in odd text
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in _VALUES:
                machine.stack.append(argument)
            elif opcode.name in _CONSTANTS:
                machine.stack.append(_CONSTANTS[opcode.name])
            elif opcode.name not in _NOTHING:
                _ACTIONS[opcode.name](machine, argument)
    return machine.pop()


class _Machine:
    def __init__(self, names: Names, persistent: Callable[[Any], Any]):
        self.names = names
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark instead of a value")
        return value

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise TypeError(f"{kind.__name__} expected")
        return self.stack[-1]

    def items(self) -> list[Any]:
        """Takes everything above the topmost mark, and the mark."""
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def tuple_of(self, length: int) -> None:
        values = [self.pop() for _ in range(length)]
        self.stack.append(tuple(values[::-1]))

    def set_items(self, pairs: list[Any]) -> None:
        target = self.top(dict)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Hashing a deeply nested tuple would overflow the C stack.
            if not isinstance(key, str | bytes | int | float | None):
                raise TypeError("a key that is no plain value")
            target[key] = value

    def name(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("a name that is no text")
        found = Global(module, name)
        key = str(found)
        if key in self.names.values:
            self.stack.append(self.names.values[key])
        elif key in self.names.functions or self.names.inert(found):
            self.stack.append(found)
        else:
            raise _refusal(found)

    def call(self, function: Any, arguments: Any) -> None:
        if not (isinstance(function, Global) and isinstance(arguments, tuple)):
            raise TypeError("a call of what is no function")
        key = str(function)
        if key in self.names.functions:
            self.stack.append(self.names.functions[key](*arguments))
        else:
            self.stack.append(Record(key, arguments))

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, Record):
            target.state.update(state if isinstance(state, dict) else {"": state})
        # A state dict of torch carries `_metadata` like this, which says nothing of the weights.
        elif not isinstance(target, dict):
            raise TypeError("a state of what has none")


def _refusal(found: Global) -> UserError:
    text = "".join(c if c.isprintable() else "?" for c in str(found)[:100])
    return UserError(
        f"the reader refuses to run code: global {text}; save tensors and plain values only"
    )


def _split(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.name(module, name)


def _stack_global(machine: _Machine, _) -> None:
    name, module = machine.pop(), machine.pop()
    machine.name(module, name)


def _instance(machine: _Machine, argument: str) -> None:
    arguments = tuple(machine.items())
    _split(machine, argument)
    machine.call(machine.pop(), arguments)


def _object(machine: _Machine, _) -> None:
    function, *arguments = machine.items()
    machine.call(function, tuple(arguments))


def _reduce(machine: _Machine, _) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.call(function, arguments)


def _setitem(machine: _Machine, _) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _append(machine: _Machine, _) -> None:
    value = machine.pop()
    machine.top(list).append(value)


def _appends(machine: _Machine, _) -> None:
    values = machine.items()
    machine.top(list).extend(values)


def _dict(machine: _Machine, _) -> None:
    pairs = machine.items()
    machine.stack.append({})
    machine.set_items(pairs)


def _persistent(machine: _Machine, _) -> None:
    machine.stack.append(machine.persistent(machine.pop()))


def _put(machine, index):
    machine.memo[index] = machine.stack[-1]


def _get(machine, index):
    machine.stack.append(machine.memo[index])


_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "MARK": lambda m, _: m.stack.append(_MARK),
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m.items(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "LIST": lambda m, _: m.stack.append(m.items()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.items())),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "DICT": _dict,
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _setitem,
    "SETITEMS": lambda m, _: m.set_items(m.items()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    "MEMOIZE": lambda m, _: _put(m, len(m.memo)),
    "GLOBAL": _split,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "INST": _instance,
    "OBJ": _object,
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": _persistent,
}
