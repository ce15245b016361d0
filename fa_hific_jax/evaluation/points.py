"""Points of an evaluation: every codec with each of its settings; how a model codes an image."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fa_hific_jax.codec import bitstream, coding, float_model
from fa_hific_jax.evaluation import baselines, bits, files
from fa_hific_jax.evaluation.evaluated_models import EvaluatedModel
from fa_hific_jax.evaluation.rows import Row

RATES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Qualities of a model with a variable rate, unless others are asked for."""
SAME_SIZE = "-same-size"
"""Suffix of a baseline's id when its files have the size of the first model's, image by image. It
is a codec of its own: a mean over files of different qualities is no point of a curve."""

Canvases = Sequence[tuple[int, int]]


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """One setting of one codec, at which every image is coded."""

    codec: str  # id
    name: str  # of the setting, "q=0.5,detail=1" or "quality 40"; "" if there is only one
    fingerprint: str  # of everything that determines the result for a given image
    model: EvaluatedModel | None = None  # None for a classical codec
    quality: Any = None  # None for the only one, or the one with the size of the first model's file
    detail: float | None = None


def code(point: Point, row: Row, image: files.Image, canvases: Canvases, out: Path) -> Row:
    """Codes an image with a model, and writes the decoded picture and the bits of each position.

    The estimated rate is that of the model's own densities, as in training. An exported model
    lacks them: its estimate is the code length under its integer tables. Raises a UserError if the
    model cannot code this image.
    """
    assert point.model is not None and row.bits is not None
    model, params, start = point.model.model, point.model.params, time.perf_counter()
    data = model.compress(image, quality=point.quality, plan=canvases)
    encoded = time.perf_counter()
    decoded = model.decompress(data, detail=point.detail, plan=canvases)
    seconds = (encoded - start, time.perf_counter() - encoded)
    symbols, _ = coding.decode_symbols(model.entropy, bitstream.unpack(data))
    by_position = bits.of_symbols(model.entropy, symbols)
    if params is None:
        estimated = float(sum(each.sum(dtype=np.float64) for each in by_position))
    else:
        estimated = float(float_model.estimated_bits(model.config, params, symbols))
    files.write_npz(out / row.bits, **by_position._asdict(), key=np.array(row.key))
    files.write_png(out / row.file, decoded, row.key)
    return row.coded(len(data), seconds, bpp_estimated=estimated / (row.width * row.height))


def of_model(
    model: EvaluatedModel, qualities: Sequence[float], details: Sequence[float]
) -> list[Point]:
    """Returns a point for each combination of a rate and a detail that the model offers.

    () asks for `RATES` and for full detail.
    """
    found = []
    for q in (qualities or RATES) if model.model.config.qualities else (None,):
        for detail in details if details and model.model.config.fcm_width else (None,):
            parts = {"q": q, "detail": detail}.items()
            name = ",".join(f"{name}={value:g}" for name, value in parts if value is not None)
            found.append(Point(model.id, name, model.fingerprint, model, q, detail))
    return found


def of_baseline(
    baseline: str, count: int, same_size: bool, first: Point
) -> tuple[dict[str, dict[str, Any]], list[Point]]:
    """Returns entries of "codecs" for a classical codec, and its points; none if it is missing.

    `count` is the number of qualities, spread over its `sweep`; 0 for all, -1 for none. `same_size`
    adds the point whose files have the size of those of `first`, the first point of the first
    model. Raises a UserError if there is no such codec.
    """
    codec = baselines.codec(baseline)
    missing = codec.missing()
    about = {
        "label": codec.label,
        "kind": "baseline",
        "version": None if missing else codec.version(),
        "settings": dict(codec.settings),
        "not_measured": missing,
    }
    entries, found, identity = {baseline: about}, [], f"{about['version']} {about['settings']}"
    if same_size:
        same = baseline + SAME_SIZE
        entries[same] = about | {"label": f"{codec.label} at the size of {first.codec}"}
        found.append(Point(same, "", identity + first.fingerprint + first.name))
    number = min(count or len(codec.sweep), len(codec.sweep))
    for place in np.linspace(0, len(codec.sweep) - 1, max(number, 0)).round().astype(int):
        quality = codec.sweep[place]
        found.append(Point(baseline, f"quality {quality}", identity, quality=quality))
    return entries, [] if missing else found
