"""Counts the images that a pipeline has seen, the damaged ones and those below the crop size."""

import threading
from collections.abc import Sequence

from fa_hific_jax.errors import UserError

# A run ends if more images than this, and more than this share of those seen, are damaged.
TOLERATED = 10
TOLERATED_SHARE = 0.01

_UNSEEN, _WHOLE, _DAMAGED = range(3)


class ImageCounts:
    """Counts each image of each source once, however often it is read; threads may share it.

    Args:
      lengths: number of images in each source.
      side: an image counts as small if one of its sides is below this, in pixels.
    """

    def __init__(self, lengths: Sequence[int], side: int):
        self._side = side
        self._kinds = [bytearray(length) for length in lengths]
        self._lock = threading.Lock()
        self._seen = self._small = 0
        self._damaged: list[str] = []

    def add_whole(self, source: int, index: int, shape: tuple[int, ...]) -> None:
        """Counts image `index` of source number `source`, whose shape begins (height, width)."""
        with self._lock:
            if self._first(source, index, _WHOLE):
                self._small += min(shape[:2]) < self._side

    def add_damaged(self, source: int, index: int, sentence: str) -> None:
        """Counts an image that could not be read; `sentence` names it and gives the reason.

        Raises:
          UserError: more than `TOLERATED` images, and more than `TOLERATED_SHARE` of those seen,
            are damaged.
        """
        with self._lock:
            if not self._first(source, index, _DAMAGED):
                return
            self._damaged.append(sentence)
            damaged, seen = len(self._damaged), self._seen
        if damaged > TOLERATED and damaged > TOLERATED_SHARE * seen:
            raise UserError(
                f"{damaged} of the {seen} training images seen so far are damaged, more than "
                f"{TOLERATED_SHARE:.0%}: repair or remove them; the last one is {sentence}"
            )

    def metrics(self) -> dict[str, float]:
        """Returns the numbers of images seen, smaller than the crop, and damaged."""
        with self._lock:
            return {
                "data/seen": float(self._seen),
                "data/smaller_than_crop": float(self._small),
                "data/damaged": float(len(self._damaged)),
            }

    def damaged(self, start: int = 0) -> list[str]:
        """Returns the sentences on damaged images in order of discovery, from number `start` on."""
        with self._lock:
            return self._damaged[start:]

    def _first(self, source: int, index: int, kind: int) -> bool:
        first = self._kinds[source][index] == _UNSEEN
        self._seen += first
        self._kinds[source][index] = kind
        return first
