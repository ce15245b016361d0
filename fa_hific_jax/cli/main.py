"""Runs `fa-hific COMMAND` and reports a user's mistake in one sentence.

Each command is a module with a docstring (its help text), `add_arguments(parser)` and `run(args)`.
Slow imports stand inside `run`, so that `--help` and error messages appear at once. `train` and
`eval` parse the command line with `with_config.py`, because every key of a config is a flag there.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from fa_hific_jax import __version__, interrupts, streams
from fa_hific_jax.cli import (
    compare,
    compress,
    decompress,
    export,
    export_onnx,
    get_inception,
    get_lpips,
    get_model,
    import_torch,
    info,
    models,
    pack,
    plot,
    serve,
)
from fa_hific_jax.errors import UserError, one_line, reported

COMMANDS = {
    "compress": compress,
    "decompress": decompress,
    "info": info,
    "compare": compare,
    "export": export,
    "export-onnx": export_onnx,
    "pack": pack,
    "plot": plot,
    "serve": serve,
    "models": models,
    "get-model": get_model,
    "get-lpips": get_lpips,
    "get-inception": get_inception,
    "import-torch": import_torch,
}

WITH_CONFIGS = {
    "train": "Train a model; the same as train.py in the repository.",
    "eval": "Compare models with classical codecs; the same as eval.py in the repository.",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line.

    The exit code is 2 after a user's mistake, 1 after an error of the operating system, 128 + the
    signal's number after a signal, and 141 if the reader of standard output has closed it.
    """
    streams.make_safe()
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in WITH_CONFIGS:
        sys.argv = [f"fa-hific {argv[0]}", *argv[1:]]  # absl and the configs read sys.argv.
        with reported():  # JAX may refuse a variable of the environment when it is loaded.
            if argv[0] == "train":
                from fa_hific_jax.cli.train import start
            else:
                from fa_hific_jax.cli.eval import start
        start()
        return
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
    with interrupts.interruptible(), reported():
        args.run(args)


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
