"""Starts and ends the commands with a config, train and eval: parses flags, reports mistakes."""

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

_PACKAGE = Path(__file__).resolve().parents[1]


def run(
    main: Callable[..., None],
    required: Sequence[str],
    *,
    arguments: bool = False,
    ends_itself: bool = False,
) -> None:
    """Parses the command line, runs `main`, and exits with code 2 after a mistake of the user.

    --config evaluates a Python file. Whatever goes wrong there (no such file, a variant or key
    that does not exist, a value of another type, a mistake in its code) is reported in one
    sentence as well. --help prints the docstring of `main`'s module and the flags that it defines.

    Args:
      main: the command, called with no arguments or with those that are not flags.
      required: names of the flags that have no default.
      arguments: True if the command takes arguments that are not flags; otherwise each such
        argument is an error.
      ends_itself: True if `main` handles signals itself; otherwise a signal ends the process, see
        `interrupts.interruptible`.
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
            sys.exit(0)  # absl exits with 1 after --helpfull.
        except BrokenPipeError:  # The reader of a long help text has closed it.
            raise
        except Exception as error:  # A config is code and may raise anything.
            fail(_sentence(error, argv))

    def quiet(rest: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # Orbax logs much that does not help users.
        main(*rest[1:])

    streams.make_safe()
    ended = contextlib.nullcontext() if ends_itself else interrupts.interruptible()
    with ended, reported():
        app.run(quiet, flags_parser=parse)


def config_folder() -> Path:
    """Returns the folder configs/, which lies inside an installed package or in the repository."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def _with_shipped_config(argv: Sequence[str]) -> list[str]:
    """Returns the arguments with the path of a shipped config in the place of its name.

    Both --config hific:lo and the path within the repository, --config configs/hific.py:lo, name a
    shipped config, unless a file of that name exists. In an installed package, this also makes
    `from configs import base` work for configs outside the package.
    """
    folder = config_folder()
    if folder.parent == _PACKAGE:
        sys.modules.setdefault("configs", importlib.import_module("fa_hific_jax.configs"))
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
    """Raises a UserError for a config file or key that does not exist, or a value that is invalid.

    It runs before absl parses, because absl's messages name neither the group of the key nor the
    file.
    """
    path = _config(argv).partition(":")[0]
    if path and not os.path.isfile(path):
        shipped = ", ".join(sorted(file.stem for file in config_folder().glob("[!_]*.py")))
        raise UserError(f"--config {path}: no such file: give one that exists, or {shipped}")
    for argument in argv[1:]:
        if match := re.match(r"--?(?:no)?config\.([\w.]+)(?:=(.*))?", argument, re.DOTALL):
            settings.check_key(match[1], match[2])


def _check_given(arguments: Sequence[str], required: Sequence[str]) -> None:
    """Raises a UserError for a required flag without a value, or an unexpected argument."""
    for name in required:
        if flags.FLAGS[name].value in (None, ""):
            raise UserError(f"--{name} is missing: {flags.FLAGS[name].help}; see --help")
    if len(arguments) > 1:
        raise UserError(f"unexpected argument {arguments[1]!r}: see --help")


def _config(argv: Sequence[str]) -> str:
    """Returns the value of --config, or "" if it is not given."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if match := re.fullmatch(r"--?config(?:=(.*))?", argument):
            return following if match[1] is None else match[1]
    return ""


def _sentence(error: Exception, argv: Sequence[str]) -> str:
    """Returns the message for an error raised while parsing flags or evaluating the config."""
    # The innermost comes first: ml_collections and absl wrap the error that explains the problem.
    chain: list[BaseException] = [error]
    while chain[0].__context__ is not None:
        chain.insert(0, chain[0].__context__)
    for cause in chain:
        if isinstance(cause, UserError):
            return str(cause)
    origin = chain[0]
    if isinstance(origin, AttributeError) and getattr(origin, "name", "") == "get_config":
        path = _config(argv).partition(":")[0]
        return f"--config {path}: defines no function get_config: see docs/configuration.md"
    reason = getattr(origin, "msg", None) or ": ".join(map(str, origin.args))
    spec = _config(argv)
    if place := _place(chain, spec.partition(":")[0]):
        return f"{place}: {type(origin).__name__}: {reason}: fix the config"
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
    """Returns the file and line of the config that raised, or "" if the error is from elsewhere."""
    for error in chain:
        if isinstance(error, SyntaxError):
            return f"{error.filename}, line {error.lineno}" if error.lineno else path
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if os.path.abspath(frame.filename) == os.path.abspath(path):
                return f"{path}, line {frame.lineno}"
    return ""
