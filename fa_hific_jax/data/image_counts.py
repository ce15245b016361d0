"""What a pipeline has come across: images seen, smaller than the crop, damaged."""

import threading
from collections.abc import Sequence

from fa_hific_jax.errors import UserError

# A run ends when more images than this, and more than this share of those seen, are damaged.
TOLERATED = 10
TOLERATED_SHARE = 0.01

_UNSEEN, _WHOLE, _DAMAGED = range(3)


class Tally:
    """Counts each image of each source once, however often it comes; threads may share it.

    Args:
      lengths: number of images in each source.
      side: images of which one side is below this, in pixels, count as small.
    """

    def __init__(self, lengths: Sequence[int], side: int):
        self._side = side
        self._kinds = [bytearray(length) for length in lengths]
        self._lock = threading.Lock()
        self._seen = self._small = 0
        self._damaged: list[str] = []

    def whole(self, source: int, index: int, shape: tuple[int, ...]) -> None:
        """Image `index` of source number `source` could be read and has this height and width."""
        with self._lock:
            if self._first(source, index, _WHOLE):
                self._small += min(shape[:2]) < self._side

    def broken(self, source: int, index: int, sentence: str) -> None:
        """It could not, and `sentence` says which and why.

        Raises UserError once more than `TOLERATED` images, and more than `TOLERATED_SHARE` of those
        seen, are damaged.
        """
        with self._lock:
            if not self._first(source, index, _DAMAGED):
                return
            self._damaged.append(sentence)
            damaged, seen = len(self._damaged), self._seen
        if damaged > TOLERATED and damaged > TOLERATED_SHARE * seen:
            raise UserError(
                f"{damaged} of the {seen} training images seen so far are damaged, more than "
                f"{TOLERATED_SHARE:.0%}: repair or remove them; the last one was {sentence}"
            )

    def counts(self) -> dict[str, float]:
        """Metrics: images seen, those below the crop's side, damaged ones; each image once."""
        with self._lock:
            return {
                "data/seen": float(self._seen),
                "data/smaller_than_crop": float(self._small),
                "data/damaged": float(len(self._damaged)),
            }

    def damaged(self, start: int = 0) -> list[str]:
        """The sentences on damaged images in order of discovery, without the first `start`."""
        with self._lock:
            return self._damaged[start:]

    def _first(self, source: int, index: int, kind: int) -> bool:
        first = self._kinds[source][index] == _UNSEEN
        self._seen += first
        self._kinds[source][index] = kind
        return first
