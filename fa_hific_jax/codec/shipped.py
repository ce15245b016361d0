"""Finds models by name: those of the package, and published ones that were fetched."""

import contextlib
import json
import os
from pathlib import Path

from fa_hific_jax.cache import cache_folder
from fa_hific_jax.codec import catalog
from fa_hific_jax.errors import UserError

DEFAULT = "lite"  # name of the model that is used unless another one is given
MODEL_VARIABLE = "FA_HIFIC_MODEL"  # variable of the environment that names another model
_FOLDER = Path(__file__).parent.parent / "shipped"


def chosen_model(given: Path | str | None = None) -> str | None:
    """Returns the model that is given, else that of the environment, else None."""
    return str(given or os.environ.get(MODEL_VARIABLE) or "") or None


def model_to_use(given: Path | str | None = None) -> str:
    """Returns the model that is given, else that of the environment, else DEFAULT."""
    return chosen_model(given) or DEFAULT


def in_package() -> list[str]:
    """Returns the names of the models that are part of this installation."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/model.json"))


def known() -> list[str]:
    """Returns the names of all models: of the package, then the published ones."""
    return [*in_package(), *(model.name for model in catalog.PUBLISHED)]


def fetched_folder(name: str) -> Path:
    """Returns the folder in the user's cache for a published model; it need not exist."""
    return cache_folder() / "models" / name


def here() -> dict[str, Path]:
    """Returns the folders of all named models that are on this machine, in the order of `known`."""
    found = {name: _FOLDER / name for name in in_package()}
    with contextlib.suppress(UserError):  # Without a home folder, nothing was fetched.
        folders = {model.name: fetched_folder(model.name) for model in catalog.PUBLISHED}
        found |= {name: path for name, path in folders.items() if (path / "model.json").is_file()}
    return found


def members_of(name: str) -> list[catalog.Published]:
    """Returns the models of a family that are on this machine, in the order of their rates.

    There are none if `name` is not that of a family but of something else. Raises a UserError for a
    family of which there is no model.
    """
    if name not in catalog.FAMILIES or os.path.lexists(name):
        return []
    found = here()
    if members := [model for model in catalog.members(name) if model.name in found]:
        return members
    why = "none of its models is on this machine: `fa-hific get-model NAME` fetches one of"
    raise UserError(f"{name}: {why} {_names(name)}")


def with_id(model_id: bytes) -> str | None:
    """Returns the name of the model on this machine that has this id, or None."""
    for name, folder in here().items():
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            if json.loads((folder / "model.json").read_bytes())["id"] == model_id.hex():
                return name
    return None


def place(model: Path | str) -> str:
    """Returns the folder of a model for its name; anything else is returned unchanged.

    A file or folder of that name takes precedence over the model. Raises a UserError for a name
    that begins like one of a published model, if no such model is on this machine.
    """
    given = str(model)
    family = given.partition("-")[0]
    if os.path.lexists(given):
        return given
    if found := here().get(given):
        return str(found)
    if family not in catalog.FAMILIES:
        return given
    why = f"no such folder or model: the models of {family} are {_names(family)}"
    if catalog.find(given):
        why = f"is not on this machine: `fa-hific get-model {given}` fetches it"
    elif given == family:
        why = f"names several models: name one of them, {_names(family)}, or give --bpp"
    raise UserError(f"{given}: {why}")


def _names(family: str) -> str:
    return ", ".join(model.name for model in catalog.members(family))
