"""Runs `fa-hific COMMAND` and reports a user's mistake in one sentence.

Each command is a function whose docstring is its help text. command(parser) declares its arguments
and returns the function that runs with them. Slow imports stand inside that function, so that
`--help` and error messages appear at once. `train` and `eval` parse the command line with
`with_config.py`, because every key of a config is a flag there.
"""

import argparse
import inspect
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from fa_hific_jax import __version__, interrupts, streams
from fa_hific_jax.cli import runtime
from fa_hific_jax.cli.coding import compress, decompress, info
from fa_hific_jax.cli.compare import compare
from fa_hific_jax.cli.conversion import export, export_onnx, import_torch
from fa_hific_jax.cli.published import get_inception, get_lpips, get_model, models
from fa_hific_jax.cli.runs import pack, plot
from fa_hific_jax.cli.serve import serve
from fa_hific_jax.errors import UserError, one_line, reported

COMMANDS = {
    declare.__name__.replace("_", "-"): declare
    for declare in (
        *(compress, decompress, info, compare, export, export_onnx, pack, plot, serve, models),
        *(get_model, get_lpips, get_inception, import_torch),
    )
}
WITH_CONFIGS = {
    "train": "Train a model; the same as train.py in the repository.",
    "eval": "Compare models with classical codecs; the same as eval.py in the repository.",
}
_EXIT_CODES = """exit codes:
  0  all is done
  1  some of it is not, for example files that are damaged; the last lines say which and why
  2  the command was wrong or cannot be carried out; the message says what to change
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line.

    The exit code is 2 after a user's mistake, 1 after an error of the operating system, 128 + the
    signal's number after a signal, and 141 if the reader of standard output has closed it.
    """
    streams.make_safe()
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in WITH_CONFIGS:
        sys.argv = [f"fa-hific {argv[0]}", *argv[1:]]  # absl and the configs read sys.argv.
        return start(argv[0])
    with reported():
        try:
            os.getcwd()
        except FileNotFoundError as error:  # No relative path would work.
            told = "the current folder has been deleted: change to another one"
            raise UserError(told) from error
        for word in argv[: argv.index("--")] if "--" in argv else argv:
            # `*.png` may expand to such a name.
            if word.startswith("-") and "." in word and os.path.isfile(word):
                raise UserError(f"{word}: begins with a hyphen like an option: give ./{word}")
        args = parser().parse_args(argv)
    with interrupts.interruptible(), reported(), runtime.orderly():
        args.run(args)


def start(command: str) -> None:
    """Runs train or eval with the flags of sys.argv."""
    with reported():  # JAX may refuse a variable of the environment when it is loaded.
        if command == "train":
            from fa_hific_jax.cli.train import start
        else:
            from fa_hific_jax.cli.eval import start
    start()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands; it stores the function of the chosen one as `run`."""
    top = _Parser(
        prog="fa-hific",
        description="FA-HiFiC, a learned image codec: compresses images to .fahj files and back. "
        "`fa-hific COMMAND --help` explains a command and shows examples.",
    )
    top.add_argument("--version", action="version", version=f"fa-hific {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    layout = {"epilog": _EXIT_CODES, "formatter_class": argparse.RawDescriptionHelpFormatter}
    for name, declare in COMMANDS.items():
        text = inspect.getdoc(declare) or ""
        first = text.partition("\n")[0]
        command = commands.add_parser(name, help=first, description=text, **layout)
        command.set_defaults(run=declare(command))
    for name, summary in WITH_CONFIGS.items():
        commands.add_parser(name, help=summary)
    return top
