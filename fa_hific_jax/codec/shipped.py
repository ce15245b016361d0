"""The models that come with the package, by name."""

from pathlib import Path

DEFAULT = "lite"
"""The one that codes where no other was asked for."""

_FOLDER = Path(__file__).parent.parent / "shipped"


def names() -> list[str]:
    """Of the models in this installation."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/model.json"))


def place(model: Path | str) -> str:
    """`model` as it is or, where it names a shipped model and nothing on disk, its folder."""
    given = str(model)
    if given in names() and not Path(given).exists():
        return str(_FOLDER / given)
    return given
