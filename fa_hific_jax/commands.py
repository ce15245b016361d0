"""How a command starts and how it ends: flags, and one sentence for a user's mistake."""

import sys
from collections.abc import Callable

from absl import app, flags

from fa_hific_jax.errors import UserError


def run(main: Callable[[], None]) -> None:
    """Parses the command line, runs `main`, and exits with 2 after a mistake of the user.

    Flags are parsed first; --config evaluates a Python file, whose mistakes (no such file, a key
    that does not exist, a value of another type) are reported like any other.
    """

    def parse(argv: list[str]) -> list[str]:
        try:
            rest = flags.FLAGS(argv)
        except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
            fail(" ".join(str(error.args[-1] if error.args else error).split()))
        if len(rest) > 1:
            fail(f"unexpected argument {rest[1]!r}: see --help")
        return rest

    def guarded(_: list[str]) -> None:
        try:
            main()
        except UserError as error:
            fail(str(error))

    app.run(guarded, flags_parser=parse)


def fail(sentence: str) -> None:
    """Prints the sentence to standard error and exits with code 2."""
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)
