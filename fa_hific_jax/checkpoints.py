"""Saves and restores training runs with Orbax, and loads trained models for inference."""

import contextlib
import fnmatch
import functools
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from etils.epath import gpath
from jax.experimental import multihost_utils

from fa_hific_jax import settings as settings_lib
from fa_hific_jax.errors import UserError, shown
from fa_hific_jax.settings.model import ModelConfig, config_of

FOLDER = "checkpoints"
_SCHEMES = ("gs", "s3", "az", "hf")
DAMAGED = "damaged_checkpoints"
# Scores for which higher is better; for all others, lower is.
_RISING = ("eval/psnr",)


class LiteralPath(gpath.PosixGPath):
    """A path whose own characters are never wildcards to Orbax, so `runs/a [1]` can be searched."""

    def glob(self, pattern: str) -> Iterator["LiteralPath"]:
        """Yields the paths below this one that match a pattern, which must not contain `**`."""
        first, _, rest = pattern.partition("/")
        for child in self.iterdir() if self.is_dir() else ():
            if fnmatch.fnmatchcase(child.name, first):
                yield from child.glob(rest) if rest else [child]


def _has_no_traceback(record: logging.LogRecord) -> bool:
    return not record.exc_info


def _leave_errors_to_the_caller() -> None:
    """Keeps tracebacks of an error that a save raises as well off standard error.

    Orbax logs them, and when one array cannot be written it closes the event loop on which
    TensorStore's threads then report the others.
    """
    for logger in ("absl", "asyncio"):
        logging.getLogger(logger).addFilter(_has_no_traceback)
    if getattr(sys.unraisablehook, "func", None) is not _drop_closed_loop:
        sys.unraisablehook = functools.partial(_drop_closed_loop, sys.unraisablehook)


def _drop_closed_loop(hook: Callable[[Any], Any], lost: Any) -> None:
    if not (isinstance(lost.exc_value, RuntimeError) and "loop is closed" in str(lost.exc_value)):
        hook(lost)


class DamagedCheckpoint(UserError):
    """A checkpoint that exists but cannot be read."""


class Checkpoints:
    """The checkpoints of one run, `workdir/checkpoints/STEP/`, written in the background.

    Each checkpoint holds up to four items:

    - "autoencoder": the parameters for inference. With `optimizer.ema_decay` these are the EMA
      parameters; "training" then holds the latest ones.
    - "training": a pytree that only training needs, left out if there is none. A later stage reads
      "discriminator" ("params" and "spectral") and "dsl_sigma" from it, if present.
    - "settings": the config as JSON.
    - "scores": validation scores as JSON, left out if there are none.

    Orbax writes to a temporary name and renames it, so a folder under its final name is complete.

    Args:
      workdir: folder of the run.
      kept: number of the newest checkpoints to keep, None for all. There is one more while the next
        one is being written.
      best: name of a score; the checkpoint with the best value of it is kept too. "" for none.
      writer: True to delete checkpoints that an earlier process left incomplete.

    Raises:
      UserError: checkpoints cannot be written at that name.
    """

    def __init__(
        self, workdir: epath.Path, kept: int | None, *, best: str = "", writer: bool = False
    ):
        _leave_errors_to_the_caller()
        workdir = LiteralPath(workdir)
        _check_name(workdir)
        if (workdir / FOLDER).is_file():
            raise UserError(f"{workdir / FOLDER} is a file: remove it or name another --workdir")
        options = ocp.CheckpointManagerOptions(create=True, cleanup_tmp_directories=writer)
        self._workdir, self._kept, self._best = workdir, kept, best
        self._manager = ocp.CheckpointManager(workdir / FOLDER, options=options)

    def steps(self) -> list[int]:
        """Returns the steps of all complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """Returns the step with the best score, the newest in a tie, or None without scores."""
        scores = {}
        for step in self.steps():
            with contextlib.suppress(OSError, ValueError, KeyError):  # missing or damaged scores
                stored = json.loads((self._folder(step, "scores") / "metadata").read_text())
                scores[step] = stored[self._best] * (1 if self._best in _RISING else -1)
        return max(scores, key=lambda step: (scores[step], step), default=None)

    def save(
        self,
        step: int,
        autoencoder,
        training,
        settings: settings_lib.Settings | dict[str, Any],
        scores: Mapping[str, float] | None = None,
    ) -> None:
        """Starts writing a checkpoint; the arrays may be donated as soon as this returns.

        For a model from another program, `settings` is a nested dict of the keys that are known. A
        UserError if this checkpoint or the previous one cannot be written.
        """
        known = settings if isinstance(settings, dict) else settings_lib.to_mapping(settings)
        items: dict[str, Any] = {
            "autoencoder": ocp.args.StandardSave(autoencoder),
            "settings": ocp.args.JsonSave(known),
        }
        items |= {"training": ocp.args.StandardSave(training)} if training else {}
        items |= {"scores": ocp.args.JsonSave(dict(scores))} if scores else {}
        with self._naming_write_errors():
            self._manager.wait_until_finished()
            self._delete_old()
            self._manager.save(step, args=ocp.args.Composite(**items))

    def check(self) -> None:
        """Raises a UserError if writing in the background has failed since the last save."""
        with self._naming_write_errors():
            self._manager.check_for_errors()

    def set_aside(self, step: int) -> epath.Path:
        """Moves a checkpoint to damaged_checkpoints, in all processes; returns its new path."""
        target = self._workdir / DAMAGED / str(step)
        if jax.process_index() == 0:
            target.parent.mkdir(exist_ok=True)
            if target.exists():
                target.rmtree()
            self._folder(step).rename(target)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"set aside {step}")
        self._manager.reload()
        return target

    def restore(self, step: int, autoencoder, training) -> tuple[Any, Any]:
        """Returns the items "autoencoder" and "training" of a checkpoint.

        The arguments are pytrees that give the expected shapes, dtypes and shardings; others are
        refused with a UserError.

        Raises:
          DamagedCheckpoint: the checkpoint cannot be read, or holds no training state.
        """
        if not self.contents(step, "training"):
            raise DamagedCheckpoint(
                f"the checkpoint {self._folder(step)} holds no training state to "
                "resume from: start a new run with this one as its --config.init_from"
            )
        items = {"autoencoder": autoencoder, "training": training}
        for item, wanted in items.items():
            if _shapes(self.contents(step, item)) != _shapes(wanted):
                raise UserError(
                    f"the checkpoint of step {step} holds another training state than the config "
                    "needs: set loss.gan, loss.dsl, loss.dsl_options, loss.rate_control and "
                    "optimizer.ema_decay as in the run that wrote it, or use another --workdir"
                )
        args = {item: ocp.args.StandardRestore(wanted) for item, wanted in items.items()}
        restored = self._restore(step, **args)
        return restored["autoencoder"], restored["training"]

    def contents(self, step: int, item: str) -> dict[str, Any]:
        """Returns the shapes and dtypes of all arrays in an item, or {} if the item is missing."""
        folder = self._folder(step, item)
        with self._naming_damage(step):
            return ocp.PyTreeCheckpointHandler().metadata(folder).tree if folder.exists() else {}

    def read(self, step: int, item: str, wanted: dict[str, Any]) -> dict[str, Any]:
        """Returns as NumPy arrays the part `wanted` of the `contents` of an item."""
        if not jax.tree.leaves(wanted):
            return wanted
        args = ocp.args.PyTreeRestore(
            item=wanted,
            restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted),
            transforms={},  # This tells Orbax not to read the other arrays.
        )
        with self._naming_damage(step):
            return ocp.PyTreeCheckpointHandler().restore(self._folder(step, item), args=args)

    def settings(self, step: int) -> dict[str, Any]:
        """Returns the settings of the run that wrote a checkpoint, with its version's keys."""
        return self._restore(step, settings=ocp.args.JsonRestore())["settings"]

    def check_settings(
        self, step: int, given: settings_lib.Settings, groups: Sequence[str]
    ) -> None:
        """Raises a UserError for the first of the `differences` to a checkpoint's settings."""
        for key, was, is_now in differences(self.settings(step), given, groups):
            raise UserError(
                f"the checkpoint of step {step} was made with {key}={was}, "
                f"the config says {is_now}: use that run's config or another --workdir"
            )

    def close(self) -> None:
        """Waits until everything is written; raises a UserError if that fails."""
        with self._naming_write_errors():
            self._manager.wait_until_finished()
            self._delete_old()
            self._manager.close()

    def _folder(self, step: int, item: str = "") -> epath.Path:
        return self._workdir / FOLDER / str(step) / item

    def _restore(self, step: int, **items: Any) -> Any:
        with self._naming_damage(step):
            return self._manager.restore(step, args=ocp.args.Composite(**items))

    def _delete_old(self) -> None:
        if self._kept is None:
            return
        best = self.best_step() if self._best else None
        for step in self.steps()[: -self._kept]:
            if step != best:
                self._manager.delete(step)

    @contextlib.contextmanager
    def _naming_write_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax and TensorStore wrap an OSError in various types.
            steps = ocp.utils.checkpoint_steps(self._workdir / FOLDER)
            then = f"it resumes from step {max(steps)}" if steps else "there is no checkpoint yet"
            raise UserError(
                f"no checkpoint can be written to {self._workdir / FOLDER} ({_first_line(error)}): "
                f"free disk space or repair the folder, then repeat the command: {then}"
            ) from error

    @contextlib.contextmanager
    def _naming_damage(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # JSON, Orbax and TensorStore each raise their own types.
            raise DamagedCheckpoint(
                f"the checkpoint {self._folder(step)} is damaged "
                f"({_first_line(error)}): restore it from a copy, or remove its folder"
            ) from error


def by_path(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree in order, by paths that do not depend on types of nodes."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {k: tuple(leaf.shape) for k, leaf in by_path(tree).items() if hasattr(leaf, "shape")}


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0] or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def differences(
    stored: Mapping[str, Any], given: settings_lib.Settings, groups: Sequence[str]
) -> list[tuple[str, Any, Any]]:
    """Returns (key, stored value, given value) of each setting in `groups` that differs.

    `stored` are settings read from JSON, perhaps of another version. An entry of `groups` is a
    group of keys, such as "model", or a single key outside all groups.
    """
    ours, defaults = (
        json.loads(json.dumps(settings_lib.to_mapping(each)))
        for each in (given, settings_lib.Settings())
    )
    found = []
    for group in groups:
        if isinstance(ours[group], dict):
            # A key that an older version lacked has its default, which changes nothing.
            was = defaults[group] | stored[group] if group in stored else {}
            found += [(f"{group}.{key}", was.get(key), now) for key, now in ours[group].items()]
        else:
            found.append((group, stored.get(group), ours[group]))
    return [each for each in found if each[1] != each[2]]


def newest(workdir: epath.Path, called: str) -> tuple[Checkpoints, int]:
    """Returns the checkpoints of a run and the newest step; a UserError if there is none.

    Errors name the option `called`.
    """
    missing = f"{called} {workdir} holds no {FOLDER} folder"
    if is_there(workdir / FOLDER):
        checkpoints = Checkpoints(workdir, kept=None)
        if steps := checkpoints.steps():
            return checkpoints, steps[-1]
        missing = f"{workdir / FOLDER} holds no complete checkpoint"
    raise UserError(f"{missing}: train there with train.py")


def load_autoencoder(
    workdir: epath.Path,
    given: settings_lib.Settings | None = None,
    called: str = "--workdir",
    step: int | None = None,
) -> tuple[Any, int, dict[str, Any], ModelConfig]:
    """Returns the autoencoder in a checkpoint: parameters, step, settings and its config.

    The checkpoint is that of `step`, by default the newest. The parameters are on one device; the
    settings are `given` or else those of the run, as a nested dict. Errors name the option
    `called`, which gave `workdir`.

    Raises:
      UserError: the folder or its checkpoints are missing, this version does not have the networks
        of the checkpoint, or it was made with other `model` settings than `given`.
    """
    checkpoints, last = newest(workdir, called)
    step = last if step is None else step
    contents = checkpoints.contents(step, "autoencoder")
    if not contents:
        raise UserError(f"{workdir} holds no checkpoint of step {step}: omit --step, or remove it")
    if given is not None:
        checkpoints.check_settings(step, given, ["model"])
        known, config = settings_lib.to_mapping(given), given.model
    else:
        known = checkpoints.settings(step)
        try:
            config = config_of(known["model"])
        except TypeError as error:
            raise UserError(
                f"the checkpoint in {workdir} is of a version with other networks ({error}): "
                "use the version that wrote it"
            ) from error
    params = jax.device_put(checkpoints.read(step, "autoencoder", contents))
    checkpoints.close()
    return params, step, known, config


def is_there(path: epath.Path) -> bool:
    """Returns True if the path exists; raises OSError if that cannot be determined."""
    if "://" in str(path):
        return path.exists()
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.stat(path)
        return True
    return False


def workdir_path(workdir: str, called: str = "--workdir") -> epath.Path:
    """Returns the absolute path of a local or cloud folder that can hold checkpoints.

    A UserError names the option `called` if the name is empty, or that of a file, or not usable.
    """
    if not workdir:
        raise UserError(f"{called} is empty: name a folder, such as . for the current one")
    if (scheme := re.match(r"(\w+)://?", workdir)) and workdir.partition("://")[0] not in _SCHEMES:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise UserError(f"{called} {workdir}: {scheme[0]} is not one of {known}: give a path")
    if workdir.startswith("~") and os.path.expanduser(workdir) == workdir:
        raise UserError(f"{called} {workdir}: there is no such home folder: give the whole path")
    path = LiteralPath(workdir) if "://" in workdir else LiteralPath(workdir).expanduser().resolve()
    if path.is_file():
        raise UserError(f"{called} {workdir} is a file: name a folder")
    _check_name(path)
    return path


def _check_name(workdir: epath.Path) -> None:
    """Raises a UserError for a name below which TensorStore cannot write."""
    name = os.fspath(workdir)
    if "\\" in name:
        raise UserError(f"{name} has a backslash, which checkpoints cannot have: rename the folder")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{shown(name)} is not valid UTF-8, which checkpoints need: rename the folder"
        ) from error
