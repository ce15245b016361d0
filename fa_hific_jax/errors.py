"""The one exception that is the user's to mend, and how a command ends with it."""

import sys
from typing import NoReturn


class UserError(ValueError):
    """Bad input: the message is one sentence that names the thing and the mend.

    Commands print the message alone and exit with code 2; any other exception is a bug and keeps
    its traceback.
    """


def fail(sentence: str) -> NoReturn:
    """Prints the sentence as one line to standard error and exits with code 2."""
    print("error:", *sentence.split(), file=sys.stderr)
    sys.exit(2)
