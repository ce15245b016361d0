"""Figures from the literature, each shown only for the set of images it was measured on.

literature.json holds them with source and protocol. They have points but no rows, and are never
averaged, interpolated or compared with what was measured here.
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

    Sets are "kodak", "clic2020" (test), "div2k" (validation) and "kodak-256" (of the FA-HiFiC
    poster). A point has "bpp" and metrics by the ids of `metrics.DESCRIPTIONS`; "lpips" alone is
    LPIPS of an unknown backbone.
    """
    return [entry for entry in json.loads(_FILE.read_text("utf-8")) if entry["set"] == name]


def recognize(sizes: Mapping[str, tuple[int, int]]) -> str | None:
    """Returns the set of which these (width, height) are all images by their own names, or None.

    Those of Kodak must have their own sizes. Images of CLIC 2020 have no names of their own.
    """
    names, found = set(sizes), set(sizes.values())
    if names == _KODAK and found == {(768, 512), (512, 768)}:
        return "kodak"
    if names == _KODAK and found == {(256, 256)}:
        return "kodak-256"
    return "div2k" if names == _DIV2K else None
