"""Starts and ends the commands with a config, train and eval: their flags, mistakes in them."""

import contextlib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from fa_hific_jax import interrupts, settings, streams
from fa_hific_jax.errors import UserError, fail, reported
from fa_hific_jax.training import processes

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = (_PACKAGE / "configs").is_dir()  # else in the repository
_CONFIGS = (_PACKAGE if _INSTALLED else _PACKAGE.parent) / "configs"

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, with its variant after a colon; eval takes the run's own"
)
WORKDIR = flags.DEFINE_string("workdir", "", "Folder of a run, for its checkpoints and logs")
COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "host:port of process 0 of several (or JAX_COORDINATOR_ADDRESS)"
)
PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes (or JAX_NUM_PROCESSES)")
PROCESS = flags.DEFINE_integer("process", None, "Index of this process (or JAX_PROCESS_ID)")


def given_settings() -> settings.Settings | None:
    """Returns the settings of --config and its overrides, or None if it is not given."""
    return settings.from_mapping(CONFIG.value.to_dict()) if CONFIG.value else None


def join_processes() -> None:
    """Joins the other processes of this run, if there are any, before anything else uses JAX."""
    processes.join(COORDINATOR.value, PROCESSES.value, PROCESS.value)


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
    sentence as well. --help prints the docstring of `main`'s module, and the flags.

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
            shown = map(flags.FLAGS.module_help, (__name__, main.__module__))
            print(sys.modules[main.__module__].__doc__, "flags:", *shown, sep="\n")
            print("Try --helpfull for all flags.")
            sys.exit(0)
        try:
            argv = _with_shipped_config(argv)
            _check_config_arguments(argv)
            rest = flags.FLAGS(argv)
            for name in required:
                if flags.FLAGS[name].value in (None, ""):
                    raise UserError(f"--{name} is missing: {flags.FLAGS[name].help}; see --help")
            if len(rest) > 1 and not arguments:
                raise UserError(f"unexpected argument {rest[1]!r}: see --help")
            return rest
        except SystemExit:
            sys.exit(0)  # absl exits with 1 after --helpfull.
        except BrokenPipeError:  # The reader of a long help text has closed it.
            raise
        except Exception as error:  # A config is code and may raise anything.
            fail(_sentence(error, _config(argv)))

    def quiet(rest: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # Orbax logs much that does not help users.
        main(*rest[1:])

    streams.make_safe()
    ended = contextlib.nullcontext() if ends_itself else interrupts.interruptible()
    with ended, reported():
        app.run(quiet, flags_parser=parse)


def _with_shipped_config(argv: Sequence[str]) -> list[str]:
    """Returns the arguments with --config as one word, and a shipped config under its path.

    Both --config hific:lo and the path within the repository, --config configs/hific.py:lo, name a
    shipped config, unless a file of that name exists. In an installed package, this also makes
    `from configs import base` work for configs outside the package.
    """
    if _INSTALLED:
        sys.modules.setdefault("configs", importlib.import_module("fa_hific_jax.configs"))
    words: list[str] = []
    for word in argv:
        if words and re.fullmatch("--?config", words[-1]):
            words[-1] += f"={word}"
        else:
            words.append(word)
    path, colon, variant = _config(words).partition(":")
    shipped = _CONFIGS / f"{path.removeprefix('configs/').removesuffix('.py')}.py"
    if path and not os.path.isfile(path) and shipped.is_file():
        meant = f"--config={shipped}{colon}{variant}"
        words = [meant if re.match("--?config=", word) else word for word in words]
    return words


def _config(argv: Sequence[str]) -> str:
    """Returns the value of --config, or "" if it is not given."""
    values = (word.partition("=")[2] for word in argv if re.match("--?config=", word))
    return next(values, "")


def _check_config_arguments(argv: Sequence[str]) -> None:
    """Raises a UserError for a config file or key that does not exist, or a value that is invalid.

    It runs before absl parses, because absl's messages name neither the group of the key nor the
    file.
    """
    path = _config(argv).partition(":")[0]
    if path and not os.path.isfile(path):
        shipped = ", ".join(sorted(file.stem for file in _CONFIGS.glob("[!_]*.py")))
        raise UserError(f"--config {path}: no such file: give one that exists, or {shipped}")
    for argument in argv[1:]:
        if match := re.match(r"--?(?:no)?config\.([\w.]+)(?:=(.*))?", argument, re.DOTALL):
            settings.check_key(match[1], match[2])


def _sentence(error: Exception, config: str) -> str:
    """Returns the message for an error raised while parsing flags or evaluating the config."""
    # The innermost comes first: ml_collections and absl wrap the error that explains the problem.
    chain: list[BaseException] = [error]
    while chain[0].__context__ is not None:
        chain.insert(0, chain[0].__context__)
    for cause in chain:
        if isinstance(cause, UserError):
            return str(cause)
    origin, path = chain[0], config.partition(":")[0]
    if isinstance(origin, AttributeError) and getattr(origin, "name", "") == "get_config":
        return f"--config {path}: defines no function get_config: see docs/configuration.md"
    reason = getattr(origin, "msg", None) or ": ".join(map(str, origin.args))
    if place := _place(chain, path):
        return f"{place}: {type(origin).__name__}: {reason}: fix the config"
    if isinstance(error, flags.UnrecognizedFlagError):
        if error.flagname.startswith("config."):
            return f"--config is missing, so there is no {error.flagname} to change: see --help"
        return f"{error} See --help"
    if isinstance(error, flags.Error) and origin is not error:
        flag = str(error).partition(": ")[0].removeprefix("flag ")
        hint = " (docs/configuration.md explains the key)" if flag.startswith("--config.") else ""
        return f"{flag}: {reason}{hint}"
    return f"--config {config}: {error}" if config else f"{error} See --help"


def _place(chain: Sequence[BaseException], path: str) -> str:
    """Returns the file and line of the config that raised, or "" if the error is from elsewhere."""
    for error in chain:
        if isinstance(error, SyntaxError):
            return f"{error.filename}, line {error.lineno}" if error.lineno else path
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if os.path.abspath(frame.filename) == os.path.abspath(path):
                return f"{path}, line {frame.lineno}"
    return ""
