"""Figures from the literature, each shown only for the set of images it was measured on.

They are in literature.json with their source and protocol. They have points but no rows, and are
never averaged, interpolated or compared with what was measured here.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("literature.json")
_KODAK = {f"kodim{number:02d}" for number in range(1, 25)}
_DIV2K = {f"{number:04d}" for number in range(801, 901)}


def for_images(name: str | None) -> list[dict[str, Any]]:
    """Returns the figures for a set of images: {"label", "source", "set", "protocol", "points"}.

    A point has "bpp" and metrics by the ids of `metrics.DESCRIPTIONS`, as far as these are the
    same ("lpips" alone is LPIPS of an unknown backbone).

    Args:
      name: "kodak", "clic2020" (the test set), "div2k" (the validation set) or "kodak-256" (the
        cropped and downsampled one of the FA-HiFiC poster), as `recognize` returns it. There are
        none for anything else.
    """
    return [entry for entry in json.loads(_FILE.read_text("utf-8")) if entry["set"] == name]


def recognize(sizes: Mapping[str, tuple[int, int]]) -> str | None:
    """Returns the set that these images are: "kodak", "kodak-256", "div2k", or None.

    The whole set must be there under its own names, and Kodak in its own sizes: a folder's name
    proves nothing, and the figures do not apply to some of the images. The images of CLIC 2020
    have no names by which to recognize them.

    Args:
      sizes: name without suffix -> (width, height) in pixels.
    """
    names, found = set(sizes), set(sizes.values())
    if names == _KODAK and found == {(768, 512), (512, 768)}:
        return "kodak"
    if names == _KODAK and found == {(256, 256)}:
        return "kodak-256"
    return "div2k" if names == _DIV2K else None
