"""`fa-hific COMMAND`: finds the command, runs it, and turns a user's mistake into one sentence.

Each command is a module with a docstring (its help), `add_arguments(parser)` and `run(args)`. Its
heavy imports stand within `run`, so that `--help` and mistakes answer at once. `train` and `eval`
have flags of another kind, as any key of a config is one, and parse the command line themselves.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from fa_hific_jax import __version__, interrupts, streams
from fa_hific_jax.cli import (
    compress,
    decompress,
    export,
    get_inception,
    get_lpips,
    import_torch,
    info,
    pack,
    plot,
    serve,
)
from fa_hific_jax.errors import UserError, one_line, reported

COMMANDS = {
    "compress": compress,
    "decompress": decompress,
    "info": info,
    "export": export,
    "pack": pack,
    "plot": plot,
    "serve": serve,
    "get-lpips": get_lpips,
    "get-inception": get_inception,
    "import-torch": import_torch,
}

WITH_CONFIGS = {
    "train": "Train a model (train.py of the repository).",
    "eval": "Measure models beside classical codecs (eval.py of the repository).",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Exits with 2 after a user's mistake, with 1 after an error of the operating system, with 128 +
    its number after a signal, and with 141 where standard output has lost its reader.
    """
    streams.make_safe()
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in WITH_CONFIGS:
        sys.argv = [f"fa-hific {argv[0]}", *argv[1:]]  # absl and the configs read it there.
        with reported():
            module = importlib.import_module(f"fa_hific_jax.{argv[0]}")
        module.start()
        return
    with reported():
        _check_folder()
        _check_hyphens(argv)
        args = parser().parse_args(argv)
    with interrupts.interruptible(), reported():
        args.run(args)


def _check_folder() -> None:
    """Raises a UserError where the current folder is gone, so that no relative name leads on."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UserError("the current folder has been deleted: change to another one") from error


def _check_hyphens(argv: Sequence[str]) -> None:
    """Raises a UserError for a file that would be taken for options, as `*.png` may give it."""
    options = argv[: argv.index("--")] if "--" in argv else argv
    for word in options:
        if word.startswith("-") and "." in word and os.path.isfile(word):
            raise UserError(f"{word}: begins with a hyphen as options do: give ./{word}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands; the chosen one's `run` is stored as `run`."""
    top = _Parser(
        prog="fa-hific", description="FA-HiFiC, a learned image codec: images to bytes and back."
    )
    top.add_argument("--version", action="version", version=f"fa-hific {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        summary = (module.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    for name, summary in WITH_CONFIGS.items():
        commands.add_parser(name, help=summary)
    return top
