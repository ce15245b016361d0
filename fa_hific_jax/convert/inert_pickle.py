"""A reader of pickles that contain plain values; it imports nothing and calls nothing from them.

`pickle.loads` imports and calls whatever a file names. Here the standard library's `pickletools`
parses the opcodes, and a stack machine executes them on plain values. The caller decides what each
name in the pickle stands for. The machine knows the opcodes that pickle writes from protocol 2 on.

Subclassing `pickle.Unpickler` would not be enough. It sets attributes of the objects it makes,
hashes nested tuples until the C stack overflows, and allocates whatever memo size a file asks for.
"""

import io
import pickletools
import warnings
from collections.abc import Callable
from typing import Any

_VALUES = set(
    "BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINSTRING SHORT_BINSTRING BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_MARK = object()


class Record(dict):
    """The state of an object whose class is not imported."""


def load(stream: io.BytesIO, find: Callable[[str], Any], persistent: Callable[[Any], Any]) -> Any:
    """Returns the next pickled object of a stream, which is read up to its end.

    `find` maps a dotted name in the pickle to a value or to the function that is called in place of
    the one of that name, or raises an error. `persistent` turns a persistent id into an object.

    Raises:
      ValueError, TypeError, LookupError, OverflowError, AttributeError: the pickle is damaged.
    """
    machine = _Machine(find, persistent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Damaged text has odd escapes.
        for opcode, argument, _ in pickletools.genops(stream):
            machine.execute(opcode.name, argument)
    return machine.pop()


class _Machine:
    """The stack machine of the pickle format, restricted to plain values and allowed names."""

    def __init__(self, find: Callable[[str], Any], persistent: Callable[[Any], Any]):
        self.find, self.persistent = find, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def execute(self, opcode: str, argument: Any) -> None:
        push = self.stack.append
        match opcode:
            case _ if opcode in _VALUES:
                push(argument)
            case _ if opcode in _CONSTANTS:
                push(_CONSTANTS[opcode])
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                push(_MARK)
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                push(self.memo[argument])
            case "TUPLE":
                push(tuple(self.items()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(self.popped(int(opcode[-1]))))
            case "EMPTY_LIST" | "EMPTY_DICT":
                push([] if opcode == "EMPTY_LIST" else {})
            case "APPEND" | "APPENDS":
                values = self.popped(1) if opcode == "APPEND" else self.items()
                self.top(list).extend(values)
            case "SETITEM" | "SETITEMS":
                pairs = self.popped(2) if opcode == "SETITEM" else self.items()
                self.set_items(self.top(dict), pairs)
            case "GLOBAL":
                push(self.find(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                push(self.find(".".join(self.popped(2))))
            case "REDUCE" | "NEWOBJ":
                function, arguments = self.popped(2)
                push(function(*arguments))
            case "BUILD":
                state, target = self.pop(), self.top(dict)
                # A state dict gets its `_metadata` this way, which says nothing about the weights.
                if isinstance(target, Record) and isinstance(state, dict):
                    target.update(state)
            case "BINPERSID":
                push(self.persistent(self.pop()))
            case _:
                raise LookupError(f"unsupported opcode {opcode}")

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark in place of a value")
        return value

    def popped(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]

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

    def set_items(self, target: dict, pairs: list[Any]) -> None:
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Hashing a deeply nested tuple would overflow the C stack.
            if not isinstance(key, str | bytes | int | float | None):
                raise TypeError("a key that is not a plain value")
            target[key] = value
