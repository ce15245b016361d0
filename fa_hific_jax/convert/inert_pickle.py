"""A reader of pickles that contain plain values; it imports nothing and calls nothing from them.

`pickle.loads` imports and calls whatever a file names. Here the standard library's `pickletools`
parses the opcodes, and a stack machine executes those that pickle writes from protocol 2 on. The
caller decides what each name in the pickle stands for.

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
# How many values an opcode takes from the stack; None for all those above the topmost mark.
_TAKEN = dict(TUPLE=None, TUPLE1=1, TUPLE2=2, TUPLE3=3, APPEND=1, APPENDS=None, SETITEM=2)
_TAKEN |= dict(SETITEMS=None, STACK_GLOBAL=2, REDUCE=2, NEWOBJ=2, BUILD=1, BINPERSID=1, STOP=1)


class Record(dict):
    """The state of an object whose class is not imported."""


def load(stream: io.BytesIO, find: Callable[[str], Any], persistent: Callable[[Any], Any]) -> Any:
    """Returns the next pickled object of a stream, which is read up to its end.

    `find` maps a dotted name in the pickle to a value or to the function that is called in place of
    the one of that name, or raises an error. `persistent` turns a persistent id into an object. A
    damaged pickle raises one of many exceptions.
    """
    machine, value = _Machine(find, persistent), None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Damaged text has odd escapes.
        for opcode, argument, _ in pickletools.genops(stream):
            value = machine.execute(opcode.name, argument)
    return value


class _Machine:
    """The stack machine of the pickle format, restricted to plain values and allowed names."""

    def __init__(self, find: Callable[[str], Any], persistent: Callable[[Any], Any]):
        self.find, self.persistent = find, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def execute(self, opcode: str, argument: Any) -> Any:
        """Executes an opcode; returns the pickled object if it is the last one."""
        push, taken = self.stack.append, self.take(_TAKEN.get(opcode, 0))
        match opcode:
            case _ if opcode in _VALUES:
                push(argument)
            case _ if opcode in _CONSTANTS:
                push(_CONSTANTS[opcode])
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return taken[0]
            case "MARK":
                push(_MARK)
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                push(self.memo[argument])
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(taken))
            case "EMPTY_LIST" | "EMPTY_DICT":
                push([] if opcode == "EMPTY_LIST" else {})
            case "APPEND" | "APPENDS" if isinstance(self.stack[-1], list):
                self.stack[-1].extend(taken)
            case "SETITEM" | "SETITEMS" if isinstance(self.stack[-1], dict):
                # Hashing a deeply nested tuple would overflow the C stack.
                if not all(isinstance(key, str | bytes | int | float | None) for key in taken[::2]):
                    raise TypeError("a key that is not a plain value")
                self.stack[-1].update(zip(taken[::2], taken[1::2], strict=True))
            case "GLOBAL" | "STACK_GLOBAL":
                push(self.find(".".join(taken) or argument.replace(" ", ".", 1)))
            case "REDUCE" | "NEWOBJ":
                push(taken[0](*taken[1]))
            case "BUILD" if isinstance(self.stack[-1], dict):
                # A state dict gets its `_metadata` this way, which says nothing about the weights.
                if isinstance(self.stack[-1], Record) and isinstance(taken[0], dict):
                    self.stack[-1].update(taken[0])
            case "BINPERSID":
                push(self.persistent(taken[0]))
            case _:
                raise LookupError(f"opcode {opcode} is unsupported or does not fit the stack")

    def take(self, count: int | None) -> list[Any]:
        """Removes the topmost values, or the topmost mark and all above it, and returns them."""
        taken = []
        while count is None or len(taken) < count:
            value = self.stack.pop()
            if value is _MARK and count is None:
                break
            if value is _MARK:
                raise ValueError("a mark in place of a value")
            taken.append(value)
        return taken[::-1]
