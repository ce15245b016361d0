"""A reader of pickles that contain plain values; it imports nothing and calls nothing from them.

`pickle.loads` imports and calls whatever a file names. Here the standard library's `pickletools`
parses the opcodes, and a stack machine executes them on plain values. A name in the pickle becomes
a `Global`, which is only a string. The caller decides which names are allowed and what "calling"
them does: it runs the caller's own function, or it stores the arguments in a `Record`.

Subclassing `pickle.Unpickler` would not be enough. It sets attributes of the objects it makes,
hashes nested tuples until the C stack overflows, and allocates whatever memo size a file asks for.
"""

import io
import pickletools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fa_hific_jax.errors import UserError, shown

_VALUES = set(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_MARK = object()


class Global(str):
    """The dotted name of a function or class in a pickle; nothing was imported."""


class Record:
    """The class name, arguments and state of an object in a pickle; the class is not imported."""

    def __init__(self, kind: str, arguments: tuple):
        self.kind = kind  # dotted name of the class
        self.arguments = arguments
        self.state: dict[str, Any] = {}


class Names(NamedTuple):
    """The dotted names that a pickle may contain."""

    functions: Mapping[str, Callable[..., Any]]  # called in place of the function of that name
    values: Mapping[str, Any]  # stands in for a name that is only mentioned
    inert: Callable[[str], bool]  # True for classes whose instances become a `Record`


def load(stream: io.BytesIO, names: Names, persistent: Callable[[Any], Any]) -> Any:
    """Returns the next pickled object of a stream: plain containers, numbers and text.

    Args:
      stream: read up to the end of the object.
      names: the names that may occur.
      persistent: turns a persistent id into an object.

    Raises:
      UserError: the pickle contains a name that is not allowed.
      ValueError, TypeError, LookupError, OverflowError, AttributeError: the pickle is damaged.
    """
    machine = _Machine(names, persistent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Damaged text has odd escapes.
        for opcode, argument, _ in pickletools.genops(stream):
            machine.execute(opcode.name, argument)
    return machine.pop()


class _Machine:
    """The stack machine of the pickle format, restricted to plain values and allowed names."""

    def __init__(self, names: Names, persistent: Callable[[Any], Any]):
        self.names = names
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def execute(self, opcode: str, argument: Any) -> None:
        match opcode:
            case _ if opcode in _VALUES:
                self.stack.append(argument)
            case _ if opcode in _CONSTANTS:
                self.stack.append(_CONSTANTS[opcode])
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self.stack.append(_MARK)
            case "POP":
                self.stack.pop()
            case "POP_MARK":
                self.items()
            case "DUP":
                self.stack.append(self.stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "TUPLE":
                self.stack.append(tuple(self.items()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                values = [self.pop() for _ in range(int(opcode[-1]))]
                self.stack.append(tuple(values[::-1]))
            case "EMPTY_LIST":
                self.stack.append([])
            case "LIST":
                self.stack.append(self.items())
            case "APPEND":
                value = self.pop()
                self.top(list).append(value)
            case "APPENDS":
                values = self.items()
                self.top(list).extend(values)
            case "EMPTY_DICT":
                self.stack.append({})
            case "DICT":
                pairs = self.items()
                self.stack.append({})
                self.set_items(pairs)
            case "SETITEM":
                value, key = self.pop(), self.pop()
                self.set_items([key, value])
            case "SETITEMS":
                self.set_items(self.items())
            case _:
                self.execute_object(opcode, argument)

    def execute_object(self, opcode: str, argument: Any) -> None:
        """Executes the opcodes that `pickle.loads` would import, call or modify objects for."""
        match opcode:
            case "GLOBAL":
                module, _, name = argument.partition(" ")
                self.stack.append(self.find(module, name))
            case "STACK_GLOBAL":
                name, module = self.pop(), self.pop()
                self.stack.append(self.find(module, name))
            case "REDUCE" | "NEWOBJ":
                arguments, function = self.pop(), self.pop()
                self.stack.append(self.call(function, arguments))
            case "INST":
                arguments = tuple(self.items())
                module, _, name = argument.partition(" ")
                self.stack.append(self.call(self.find(module, name), arguments))
            case "OBJ":
                function, *arguments = self.items()
                self.stack.append(self.call(function, tuple(arguments)))
            case "BUILD":
                self.build()
            case "BINPERSID":
                self.stack.append(self.persistent(self.pop()))
            case _:
                raise LookupError(f"unsupported opcode {opcode}")

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark in place of a value")
        return value

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise TypeError(f"expected a {kind.__name__}")
        return self.stack[-1]

    def items(self) -> list[Any]:
        """Removes the topmost mark and returns everything that was above it."""
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def set_items(self, pairs: list[Any]) -> None:
        target = self.top(dict)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Hashing a deeply nested tuple would overflow the C stack.
            if not isinstance(key, str | bytes | int | float | None):
                raise TypeError("a key that is not a plain value")
            target[key] = value

    def find(self, module: Any, name: Any) -> Any:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("a name that is not text")
        found = Global(f"{module}.{name}")
        if found in self.names.values:
            return self.names.values[found]
        if found in self.names.functions or self.names.inert(found):
            return found
        raise UserError(
            f"the file refers to {shown(found[:100])}, which could run code: save it again with "
            "tensors and plain values only"
        )

    def call(self, function: Any, arguments: Any) -> Any:
        if not (isinstance(function, Global) and isinstance(arguments, tuple)):
            raise TypeError("a call of something that is not a function")
        if function in self.names.functions:
            return self.names.functions[function](*arguments)
        return Record(str(function), arguments)

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, Record):
            target.state.update(state if isinstance(state, dict) else {"": state})
        # torch gives a state dict its `_metadata` this way, which says nothing about the weights.
        elif not isinstance(target, dict):
            raise TypeError("a state for an object that has none")
