"""Random-access sources of images: procedures, files, packed shards and TensorFlow Datasets.

Every source has a length, items uint8 (h, w, 3) in [0, 255] and `names`, one unique name per item.
"""

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.data import image_names
from fa_hific_jax.data.dead_leaves import DeadLeaves
from fa_hific_jax.data.images import on_white, read_image
from fa_hific_jax.data.records import ArrayRecords, TensorFlowDataset
from fa_hific_jax.errors import UserError, say, shown

_DEAD_LEAVES = "512"  # number of images of the spec "dead_leaves"; cached, they take 100 MB

# Photographs that scikit-image installs. All but "camera", the one gray image for validation, are
# in color; the two motorcycles are a stereo pair. scikit-image's other images are graphics,
# microscopy, astronomy or gray.
_PHOTOGRAPHS = {
    "train": ("astronaut.png", "coffee.png", "motorcycle_left.png", "motorcycle_right.png"),
    "validation": ("camera.png", "chelsea.png", "rocket.jpg"),
}


@runtime_checkable  # Tests check the types of arguments.
class Source(Protocol):
    """Images that can be read by index."""

    @property
    def names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]: ...


class Files:
    """The given image files; each access decodes one, on white."""

    def __init__(self, paths: Iterable[Path | str]):
        self._paths = [str(path) for path in paths]

    @property
    def names(self) -> list[str]:
        return unique(shown(Path(path).stem) for path in self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        return on_white(read_image(self._paths[index]))


class ImageFiles(Files):
    """The images that `image_names.find` finds, in formats that can be read here.

    A line on standard error counts the others. Raises UserError if there are no images.
    """

    def __init__(self, pattern: str):
        suffixes = image_names.suffixes()
        found = image_names.find(pattern, image_names.is_any_image)
        omitted = image_names.left_out(found)
        super().__init__(path for path in found if PurePath(path).suffix.lower() in suffixes)
        if not len(self):
            more = f" ({omitted})" if omitted else ""
            raise UserError(
                f"{pattern}: no images here{more}; expected a folder or glob with "
                f"{' '.join(sorted(suffixes))}"
            )
        if omitted:
            say(f"{shown(pattern)}: {omitted}")


class Photographs(Files):
    """Photographs that scikit-image installs: 4 in the split "train", 3 others in "validation".

    Raises UserError if the split is another one, or scikit-image is not installed.
    """

    def __init__(self, split: str):
        if split not in _PHOTOGRAPHS:
            raise UserError(f"photographs:{split}: the split must be one of {list(_PHOTOGRAPHS)}")
        spec = importlib.util.find_spec("skimage")
        if spec is None or spec.origin is None:
            raise UserError(
                f"photographs:{split}: these images come with scikit-image, which is not "
                "installed; run pip install 'fa-hific-jax[train]'"
            )
        super().__init__(Path(spec.origin).parent / "data" / name for name in _PHOTOGRAPHS[split])


class Cached:
    """Keeps each image of `source` in memory, read-only, after its first access.

    Threads may share it: if two ask for the same new image at once, both read it and one is kept.
    """

    def __init__(self, source: Source):
        self._source = source
        self._images: dict[int, np.ndarray] = {}

    @property
    def names(self) -> Sequence[str]:
        return self._source.names

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        if index not in self._images:
            image = self._source[index]
            image.setflags(write=False)
            self._images.setdefault(index, image)
        return self._images[index]


def open_source(spec: str, tfds_dir: str = "") -> Source:
    """Opens the source that `spec` names; raises UserError if there is nothing to open.

    Args:
      spec: "dead_leaves" or "dead_leaves:COUNT" for procedural images, "photographs:train" or
        "photographs:validation" for those that come with scikit-image, "arrayrecord:PATTERN" for
        shards that `fa-hific pack` wrote, "tfds:NAME/CONFIG:SPLIT" for a prepared data set of
        TensorFlow Datasets; anything else is a folder or glob of images, local or in a bucket.
      tfds_dir: the folder in which TensorFlow Datasets keeps its data.
    """
    kind, _, rest = spec.partition(":")
    match kind:
        case "photographs":
            return Photographs(rest)
        case "arrayrecord":
            return ArrayRecords(rest)
        case "tfds":
            return TensorFlowDataset(rest, tfds_dir)
        case "dead_leaves":
            count = rest or _DEAD_LEAVES
            if not (count.isascii() and count.isdigit() and int(count)):
                raise UserError(f"{spec}: give a positive number of images after the colon")
            return DeadLeaves(int(count))
    return ImageFiles(spec)


def unique(stems: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Appends -2, -3, ... to stems that equal an earlier one, or one of `taken`, up to case."""
    names, taken = [], {name.lower() for name in taken}
    for stem in stems:
        name, number = stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.lower())
        names.append(name)
    return names
