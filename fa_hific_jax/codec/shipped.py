"""Finds the models that are part of the package, by name."""

import os
from pathlib import Path

DEFAULT = "lite"
"""Name of the model that is used unless another one is given."""

MODEL_VARIABLE = "FA_HIFIC_MODEL"
"""Variable of the environment that names another model."""

_FOLDER = Path(__file__).parent.parent / "shipped"


def model_to_use(given: Path | str | None = None) -> str:
    """Returns the model that is given, else that of the environment, else DEFAULT."""
    return str(given or os.environ.get(MODEL_VARIABLE) or DEFAULT)


def names() -> list[str]:
    """Returns the names of the models in this installation."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/model.json"))


def place(model: Path | str) -> str:
    """Returns the folder of a shipped model for its name; anything else is returned unchanged.

    A file or folder of that name takes precedence over the shipped model.
    """
    given = str(model)
    if given in names() and not Path(given).exists():
        return str(_FOLDER / given)
    return given
