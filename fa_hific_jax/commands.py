"""How train and eval start and how they end: flags, and one sentence for a user's mistake."""

import contextlib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from fa_hific_jax import interrupts, settings, streams
from fa_hific_jax.errors import UserError, fail, reported


def run(
    main: Callable[..., None],
    required: Sequence[str],
    *,
    arguments: bool = False,
    ends_itself: bool = False,
) -> None:
    """Parses the command line, runs `main`, and exits with 2 after a mistake of the user.

    With `arguments`, those that are no flags are given to `main`; otherwise there must be none.
    With `ends_itself`, `main` decides what a signal does; otherwise see `interrupts.interruptible`.

    --config evaluates a Python file: whatever goes wrong there (no such file, a variant or key
    that does not exist, a value of another type, a mistake in its code) is reported in one
    sentence as well. `required` names the flags that have no default.

    --help prints the docstring of `main`'s module, and the flags that it defines.
    """

    def parse(argv: list[str]) -> list[str]:
        if {"--help", "-help", "-h"}.intersection(argv[1:]):
            print(_help(main.__module__))
            sys.exit(0)
        try:
            argv = _with_shipped_config(argv)
            _check_config_arguments(argv)
            rest = flags.FLAGS(argv)
            _check_given(rest if not arguments else (), required)
            return rest
        except SystemExit:
            sys.exit(0)  # absl ends a --help that succeeded with 1
        except BrokenPipeError:  # the reader of a long help has gone
            raise
        except Exception as error:  # a config is code and may raise anything
            fail(_sentence(error, argv))

    def quiet(rest: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # Orbax tells much that is of no use here.
        main(*rest[1:])

    streams.make_safe()
    ended = contextlib.nullcontext() if ends_itself else interrupts.interruptible()
    with ended, reported():
        app.run(quiet, flags_parser=parse)


def config_folder() -> Path:
    """configs/ as an installed package has it, or that of the repository."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def _with_shipped_config(argv: Sequence[str]) -> list[str]:
    """The arguments, --config hific:lo with the path of that config where no such file is at hand.

    So does configs/hific.py:lo, the path within the repository. A config that begins with
    `from configs import base` finds it in an installed package too.
    """
    folder = config_folder()
    if folder.parent.name == __package__:
        configs = importlib.import_module(f"{__package__}.configs")
        sys.modules.setdefault("configs", configs)
    path, colon, variant = _config(argv).partition(":")
    shipped = folder / f"{path.removeprefix('configs/').removesuffix('.py')}.py"
    if not path or os.path.isfile(path) or not shipped.is_file():
        return list(argv)
    words, meant = list(argv), f"{shipped}{colon}{variant}"
    for i, word in enumerate(words):
        if re.fullmatch("--?config", word):
            words[i + 1] = meant
        elif re.match("--?config=", word):
            words[i] = f"--config={meant}"
    return words


def _help(module: str) -> str:
    text = f"{sys.modules[module].__doc__}\nflags:\n{flags.FLAGS.module_help(module)}"
    return f"{text}\n\nTry --helpfull for all flags."


def _check_config_arguments(argv: Sequence[str]) -> None:
    """Raises a UserError for a config file or key that does not exist, or text that is no number.

    Before absl parses, whose complaints would name neither the group of the key nor the file.
    """
    path = _config(argv).partition(":")[0]
    if path and not os.path.isfile(path):
        shipped = ", ".join(sorted(file.stem for file in config_folder().glob("[!_]*.py")))
        raise UserError(f"--config {path}: no such file; give one that exists, or {shipped}")
    for argument in argv[1:]:
        if match := re.match(r"--?(?:no)?config\.([\w.]+)(?:=(.*))?", argument, re.DOTALL):
            settings.check_key(match[1], match[2])


def _check_given(arguments: Sequence[str], required: Sequence[str]) -> None:
    """Raises a UserError for a flag without value, and for an argument that is no flag."""
    for name in required:
        if flags.FLAGS[name].value in (None, ""):
            raise UserError(f"--{name} is missing: {flags.FLAGS[name].help}; see --help")
    if len(arguments) > 1:
        raise UserError(f"unexpected argument {arguments[1]!r}: see --help")


def _config(argv: Sequence[str]) -> str:
    """The value of --config, "" without."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if match := re.fullmatch(r"--?config(?:=(.*))?", argument):
            return following if match[1] is None else match[1]
    return ""


def _sentence(error: Exception, argv: Sequence[str]) -> str:
    """What to tell the user of an error while flags were parsed and the config was evaluated."""
    # Innermost first: ml_collections and absl raise another error around the telling one.
    chain: list[BaseException] = [error]
    while chain[0].__context__ is not None:
        chain.insert(0, chain[0].__context__)
    for cause in chain:
        if isinstance(cause, UserError):
            return str(cause)
    origin = chain[0]
    if isinstance(origin, AttributeError) and getattr(origin, "name", "") == "get_config":
        path = _config(argv).partition(":")[0]
        return f"--config {path}: has no function get_config: see docs/configuration.md"
    reason = getattr(origin, "msg", None) or ": ".join(map(str, origin.args))
    spec = _config(argv)
    if place := _place(chain, spec.partition(":")[0]):
        return f"{place}: {type(origin).__name__}: {reason}: mend the config"
    if isinstance(error, flags.UnrecognizedFlagError):
        if error.flagname.startswith("config."):
            return f"--config is missing, so there is no {error.flagname} to change: see --help"
        return f"{error} See --help"
    if isinstance(error, flags.Error) and origin is not error:
        flag = str(error).partition(": ")[0].removeprefix("flag ")
        hint = " (docs/configuration.md explains the key)" if flag.startswith("--config.") else ""
        return f"{flag}: {reason}{hint}"
    return f"--config {spec}: {error}" if spec else f"{error} See --help"


def _place(chain: Sequence[BaseException], path: str) -> str:
    """Where in the config file errors came from, "" if from elsewhere."""
    for error in chain:
        if isinstance(error, SyntaxError):
            return f"{error.filename}, line {error.lineno}" if error.lineno else path
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if os.path.abspath(frame.filename) == os.path.abspath(path):
                return f"{path}, line {frame.lineno}"
    return ""
