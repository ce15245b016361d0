"""Save and restore pytrees with Orbax, and the parameters of a trained model for inference."""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from fa_hific_jax import settings as settings_lib
from fa_hific_jax.errors import UserError
from fa_hific_jax.models.autoencoder import init_parameters

FOLDER = "checkpoints"


class Checkpoints:
    """Checkpoints of one run, `workdir/checkpoints/STEP/`, written in the background.

    Each holds three items: "autoencoder" (the model's parameters, all that inference needs),
    "training" (any pytree that only training needs) and "settings" (the config as JSON). Of
    "training", a later stage reads "discriminator" ("params" and "spectral") and "dsl_sigma" where
    they are there, the run itself everything; without any of it the item is left out.
    Orbax writes to a temporary name and renames, so a folder under its final name is whole.
    """

    def __init__(self, workdir: epath.Path, kept: int | None):
        options = ocp.CheckpointManagerOptions(max_to_keep=kept, create=True)
        self._manager = ocp.CheckpointManager(workdir / FOLDER, options=options)

    def latest_step(self) -> int | None:
        """Step of the newest whole checkpoint, None where there is none."""
        return self._manager.latest_step()

    def save(
        self, step: int, autoencoder, training, settings: settings_lib.Settings | dict[str, Any]
    ) -> None:
        """Starts writing a checkpoint; the arrays may be donated as soon as this returns.

        `settings` may be a nested dict of those that are known, where the model was made elsewhere.
        """
        known = settings if isinstance(settings, dict) else settings_lib.to_mapping(settings)
        items = {
            "autoencoder": ocp.args.StandardSave(autoencoder),
            "settings": ocp.args.JsonSave(known),
        }
        if training:
            items["training"] = ocp.args.StandardSave(training)
        self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, step: int, autoencoder, training) -> tuple[Any, Any]:
        """Both pytrees of a checkpoint, with shapes, dtypes and shardings of the arguments.

        Raises:
          UserError: the checkpoint holds other arrays than the arguments.
        """
        args = ocp.args.Composite(
            autoencoder=ocp.args.StandardRestore(autoencoder),
            training=ocp.args.StandardRestore(training),
        )
        try:
            restored = self._manager.restore(step, args=args)
        except (KeyError, TypeError, ValueError) as error:  # Orbax's, of another tree or shape
            raise UserError(
                f"the checkpoint of step {step} holds another training state than the config "
                "needs: leave loss.gan and loss.dsl on or off and loss.dsl_sigma_pairwise as "
                "that run had them, or use another --workdir"
            ) from error
        return restored["autoencoder"], restored["training"]

    def restore_autoencoder(self, step: int, autoencoder) -> Any:
        """The model's parameters alone."""
        args = ocp.args.Composite(autoencoder=ocp.args.StandardRestore(autoencoder))
        return self._manager.restore(step, args=args)["autoencoder"]

    def contents(self, step: int, item: str) -> dict[str, Any]:
        """Shapes and dtypes of everything in "autoencoder" or "training", {} without the item."""
        folder = self._folder(step, item)
        return ocp.PyTreeCheckpointHandler().metadata(folder).tree if folder.exists() else {}

    def read(self, step: int, item: str, wanted: dict[str, Any]) -> dict[str, Any]:
        """A part of `contents` as NumPy arrays, whatever devices it was written from."""
        if not jax.tree.leaves(wanted):
            return wanted
        args = ocp.args.PyTreeRestore(
            item=wanted,
            restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted),
            transforms={},  # Orbax's way to say that the rest is to stay unread
        )
        return ocp.PyTreeCheckpointHandler().restore(self._folder(step, item), args=args)

    def _folder(self, step: int, item: str) -> epath.Path:
        return epath.Path(self._manager.directory) / str(step) / item

    def settings(self, step: int) -> dict[str, Any]:
        """Settings of the run that wrote a checkpoint, as that version's nested mapping."""
        args = ocp.args.Composite(settings=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args)["settings"]

    def check_settings(
        self, step: int, given: settings_lib.Settings, groups: Sequence[str]
    ) -> None:
        """Raises a UserError unless a checkpoint was made with the same `groups` of settings.

        Other groups may differ, in their keys too: a later version still reads the model.
        """
        for key, was, is_now in differences(self.settings(step), given, groups):
            raise UserError(
                f"the checkpoint of step {step} was made with {key}={was}, "
                f"the config says {is_now}: use that run's config or another --workdir"
            )

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()


def differences(
    stored: Mapping[str, Any], given: settings_lib.Settings, groups: Sequence[str]
) -> list[tuple[str, Any, Any]]:
    """(key, stored value, given value) of what differs in `groups`, stored settings being JSON.

    A group is a group of keys or a single key.
    """
    found = []
    for group, wanted in json.loads(json.dumps(settings_lib.to_mapping(given))).items():
        if group in groups and isinstance(wanted, dict):
            was = stored.get(group, {})
            found += [(f"{group}.{key}", was.get(key), value) for key, value in wanted.items()]
        elif group in groups:
            found.append((group, stored.get(group), wanted))
    return [(key, was, is_now) for key, was, is_now in found if was != is_now]


def newest(workdir: epath.Path, called: str) -> tuple[Checkpoints, int]:
    """(checkpoints of a run, step of the newest); `called` is how the user named the folder.

    Raises:
      UserError: there are none.
    """
    if not (workdir / FOLDER).exists():
        raise UserError(f"{called} {workdir} holds no {FOLDER} folder: train there with train.py")
    checkpoints = Checkpoints(workdir, kept=None)
    step = checkpoints.latest_step()
    if step is None:
        raise UserError(f"{workdir / FOLDER} holds no whole checkpoint: train there with train.py")
    return checkpoints, step


def load_autoencoder(workdir: epath.Path, given: settings_lib.Settings) -> tuple[Any, int]:
    """(parameters of the autoencoder on one device, step) of a run's newest checkpoint.

    Raises:
      UserError: the folder or its checkpoints are missing, or the model of `given` is another one
        than the checkpoint's.
    """
    checkpoints, step = newest(workdir, "--workdir")
    checkpoints.check_settings(step, given, ["model"])
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
        jax.eval_shape(functools.partial(init_parameters, given.model), jax.random.key(0)),
    )
    params = checkpoints.restore_autoencoder(step, abstract)
    checkpoints.close()
    return params, step


def workdir_path(workdir: str, called: str = "--workdir") -> epath.Path:
    """An absolute path, as Orbax wants it, of a local or cloud folder.

    Raises:
      UserError: it is a file.
    """
    path = epath.Path(workdir) if "://" in workdir else epath.Path(workdir).expanduser().resolve()
    if path.is_file():
        raise UserError(f"{called} {workdir} is a file: name a folder")
    return path
