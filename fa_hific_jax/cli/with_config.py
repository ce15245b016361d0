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
_CONFIG = re.compile("--?config(=|$)")

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, with its variant after a colon; eval takes the run's own"
)
WORKDIR = flags.DEFINE_string("workdir", "", "Folder of a run, for its checkpoints and logs")
COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port (or JAX_COORDINATOR_ADDRESS)")
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

    Whatever goes wrong in a config, which is a Python file, is reported in one sentence as well.
    --help prints the docstring of `main`'s module, and the flags.

    Args:
      main: the command, called with the arguments that are not flags.
      required: names of the flags that have no default.
      arguments: True if the command takes arguments that are not flags.
      ends_itself: True if `main` handles signals itself; otherwise a signal ends the process, see
        `interrupts.interruptible`.
    """

    def parse(argv: list[str]) -> list[str]:
        if {"--help", "-help", "-h"}.intersection(argv[1:]):
            shown = map(flags.FLAGS.module_help, (__name__, main.__module__))
            print(sys.modules[main.__module__].__doc__, "flags:", *shown, sep="\n")
            print("Try --helpfull for all flags.")
            sys.exit(0)
        config = ""
        try:
            argv, config = _with_shipped_config(argv)
            _check_overrides(argv)
            rest = flags.FLAGS(argv)
        except SystemExit:
            sys.exit(0)  # absl exits with 1 after --helpfull.
        except (UserError, BrokenPipeError):  # The reader of a long help text has closed it.
            raise
        except Exception as error:  # A config is code and may raise anything.
            fail(_sentence(error, config))
        for name in required:
            if flags.FLAGS[name].value in (None, ""):
                raise UserError(f"--{name} is missing: {flags.FLAGS[name].help}; see --help")
        if len(rest) > 1 and not arguments:
            raise UserError(f"unexpected argument {rest[1]!r}: see --help")
        return rest

    def quiet(rest: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # Orbax logs much that does not help users.
        main(*rest[1:])

    streams.make_safe()
    ended = contextlib.nullcontext() if ends_itself else interrupts.interruptible()
    with ended, reported():
        app.run(quiet, flags_parser=parse)


def _with_shipped_config(argv: Sequence[str]) -> tuple[list[str], str]:
    """Returns the arguments with --config as one word, and its value; "" if it is not given.

    Both --config hific:lo and the path within the repository, --config configs/hific.py:lo, name a
    shipped config, unless a file of that name exists. Installed configs become importable.
    """
    if _INSTALLED:
        sys.modules.setdefault("configs", importlib.import_module("fa_hific_jax.configs"))
    at = next((i for i, word in enumerate(argv) if _CONFIG.match(word)), len(argv))
    end = at + 1 if "=" in "".join(argv[at : at + 1]) else at + 2
    config = "=".join(argv[at:end]).partition("=")[2]
    path, colon, variant = config.partition(":")
    if not path:
        return list(argv), config
    if not os.path.isfile(path):
        shipped = _CONFIGS / f"{path.removeprefix('configs/').removesuffix('.py')}.py"
        if not shipped.is_file():
            known = ", ".join(sorted(file.stem for file in _CONFIGS.glob("[!_]*.py")))
            raise UserError(f"--config {path}: no such file: give one that exists, or {known}")
        config = f"{shipped}{colon}{variant}"
    return [*argv[:at], f"--config={config}", *argv[end:]], config


def _check_overrides(argv: Sequence[str]) -> None:
    """Raises a UserError for a key of a config that does not exist, or a value that is invalid.

    It runs before absl parses, because absl's messages do not name the group of the key.
    """
    for argument in argv[1:]:
        if match := re.match(r"--?(?:no)?config\.([\w.]+)(?:=(.*))?", argument, re.DOTALL):
            settings.check_key(match[1], match[2])


def _sentence(error: Exception, config: str) -> str:
    """Returns the message for an error raised while parsing flags or evaluating the config."""
    # The innermost comes first: ml_collections and absl wrap the error that explains the problem.
    chain: list[BaseException] = [error]
    while chain[0].__context__ is not None:
        chain.insert(0, chain[0].__context__)
    if told := [str(cause) for cause in chain if isinstance(cause, UserError)]:
        return told[0]
    origin, path = chain[0], config.partition(":")[0]
    if isinstance(origin, AttributeError) and getattr(origin, "name", "") == "get_config":
        return f"--config {path}: defines no function get_config: see docs/configuration.md"
    reason = getattr(origin, "msg", None) or ": ".join(map(str, origin.args))
    if place := _place(chain, path):
        return f"{place}: {type(origin).__name__}: {reason}: fix the config"
    if isinstance(error, flags.UnrecognizedFlagError) and error.flagname.startswith("config."):
        return f"--config is missing, so there is no {error.flagname} to change: see --help"
    if isinstance(error, flags.Error) and origin is not error:
        return f"{str(error).partition(': ')[0].removeprefix('flag ')}: {reason}; see --help"
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
