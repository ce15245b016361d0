"""Where images come from: procedures, files, packed shards, TensorFlow Datasets; random access.

Every source has a length, items uint8 (h, w, 3) in [0, 255] and `names`, one unique name per item.
"""

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.data import image_names, images, listing
from fa_hific_jax.data.array_records import ArrayRecords
from fa_hific_jax.data.dead_leaves import DeadLeaves
from fa_hific_jax.data.tensorflow_datasets import TensorFlowDataset
from fa_hific_jax.errors import UserError, say, shown

DEAD_LEAVES_COUNT = 512  # of the spec "dead_leaves": 100 MB when kept in memory

# The color photographs of scikit-image's wheel; the two motorcycles are a stereo pair. Its other
# images are graphics, microscopy, astronomy or grayscale. "camera" is held out to have one gray.
_PHOTOGRAPHS = {
    "train": ("astronaut.png", "coffee.png", "motorcycle_left.png", "motorcycle_right.png"),
    "validation": ("camera.png", "chelsea.png", "rocket.jpg"),
}


@runtime_checkable  # so that tests can check the types of arguments
class Source(Protocol):
    """Images by number."""

    @property
    def names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]: ...


class Files:
    """The given image files, decoded anew each time by `read_image`."""

    def __init__(self, paths: Iterable[Path | str]):
        self._paths = [str(path) for path in paths]

    @property
    def names(self) -> list[str]:
        return _unique(shown(Path(path).stem) for path in self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        return read_image(self._paths[index])


class ImageFiles(Files):
    """Images of a folder and the folders below it, or those that a glob matches, sorted by path.

    Only files with a suffix in `image_names.suffixes()` count, and hidden ones do not; images of
    other kinds are counted on standard error. `~` stands for the home folder, and
    gs://bucket/folder or gs://bucket/*.png lies in Google's cloud. Raises UserError where there are
    none, and where the place or a folder below it cannot be listed.
    """

    def __init__(self, pattern: str):
        suffixes = image_names.suffixes()
        found = listing.find(pattern, image_names.is_any_image)
        omitted = image_names.left_out(found)
        files = [path for path in found if PurePath(path).suffix.lower() in suffixes]
        if not files:
            expected = " ".join(sorted(suffixes))
            more = f" ({omitted})" if omitted else ""
            raise UserError(
                f"{pattern}: no images here{more}; expected a folder or glob with {expected}"
            )
        if omitted:
            say(f"{shown(pattern)}: {omitted}")
        super().__init__(files)


class Photographs(Files):
    """Photographs from scikit-image's wheel: split "train" (4) or "validation" (3), never shared.

    Raises UserError for another split, and where scikit-image is not installed.
    """

    def __init__(self, split: str):
        if split not in _PHOTOGRAPHS:
            raise UserError(f"photographs:{split}: the split must be one of {list(_PHOTOGRAPHS)}")
        spec = importlib.util.find_spec("skimage")
        if spec is None or spec.origin is None:
            raise UserError(
                f"photographs:{split}: these lie in scikit-image, which is not installed; "
                "run pip install 'fa-hific-jax[train]'"
            )
        folder = Path(spec.origin).parent / "data"
        super().__init__(folder / name for name in _PHOTOGRAPHS[split])


class Cached:
    """Keeps each image of `source` in memory, read-only, from its first use on.

    Safe under threads: two that ask for the same new image at once both make it, and one is kept.
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
    """The source that `spec` names.

    "dead_leaves" or "dead_leaves:COUNT" is procedural, "photographs:train" and
    "photographs:validation" come with scikit-image, "arrayrecord:PATTERN" is what `fa-hific pack`
    wrote, "tfds:NAME/CONFIG:SPLIT" a data set of TensorFlow Datasets, prepared in the folder
    `tfds_dir`; anything else is a folder or glob of images, here or in a bucket. Raises UserError
    where there is nothing to open.
    """
    kind, _, rest = spec.partition(":")
    if kind == "photographs":
        return Photographs(rest)
    if kind == "arrayrecord":
        return ArrayRecords(rest)
    if kind == "tfds":
        return TensorFlowDataset(rest, tfds_dir)
    if kind != "dead_leaves":
        return ImageFiles(spec)
    if rest and not (rest.isascii() and rest.isdigit() and int(rest) > 0):
        raise UserError(f"{spec}: the part after the colon must be a positive number of images")
    return DeadLeaves(int(rest or DEAD_LEAVES_COUNT))


def read_image(path: Path | str) -> UInt8[np.ndarray, "h w 3"]:
    """The image of a file, here or in a bucket, as upright sRGB in [0, 255], clear parts white.

    Raises UserError with the file's name where it cannot be decoded.
    """
    if listing.is_remote(str(path)):
        return images.decode(listing.read(str(path)), str(path))
    return images.on_white(images.read_image(path))


def _unique(stems: Iterable[str]) -> list[str]:
    """The stems, with -2, -3, ... appended to those that came before, whatever their case."""
    names, taken = [], set()
    for stem in stems:
        name, number = stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.lower())
        names.append(name)
    return names
