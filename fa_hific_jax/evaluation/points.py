"""What is evaluated: models and classical codecs, each at its points, and how a model codes."""

import dataclasses
import functools
import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fa_hific_jax import checkpoints
from fa_hific_jax.codec import bitstream, coding, float_model, shipped
from fa_hific_jax.codec.model import Model, from_params
from fa_hific_jax.codec.model_folder import DESCRIPTION, load_model
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import baselines, bits, rows
from fa_hific_jax.models.autoencoder import init_parameters
from fa_hific_jax.settings import Settings

RATES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Qualities of a model with a variable rate, unless others are asked for."""
SAME_SIZE = "-same-size"
"""Suffix of a baseline's id when its files have the size of the first model's, image by image. It
is a codec of its own: a mean over files of different qualities is no point of a curve."""

Canvases = Sequence[tuple[int, int]]


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """A model among the codecs of an evaluation."""

    id: str  # name in rows and files
    kind: str  # "model", or "control" for one that has not been trained
    model: Model
    params: Any  # of the `Autoencoder`; None for an exported model, which lacks some of them
    step: int | None  # training step, where known
    settings: Mapping[str, Any]  # settings of the run, nested, as far as they are known

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of all weights and tables; `model_id` alone does not cover the encoder."""
        found = hashlib.sha256(self.model.model_id)
        for leaf in jax.tree.leaves(self.model.params):
            found.update(np.asarray(leaf).tobytes())
        return found.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Returns the model's entry in "codecs" of the results."""
        return {
            "label": self.id,
            "kind": self.kind,
            "version": f"model {self.model.model_id.hex()}",
            "settings": dataclasses.asdict(self.model.config),
            "model_id": self.model.model_id.hex(),
            "step": self.step,
            "parameters": sum(p.size for p in jax.tree.leaves(self.params or self.model.params)),
            "target_bpp": self.settings.get("loss", {}).get("target_bpp"),
            "not_measured": None,
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """One setting of one codec, at which every image is coded."""

    codec: str  # id
    name: str  # of the setting, "q=0.5,detail=1" or "quality 40"; "" if there is only one
    fingerprint: str  # of everything that determines the result for a given image
    model: EvaluatedModel | None = None  # None for a classical codec
    quality: Any = None  # None for the only one, or the one with the size of the first model's file
    detail: float | None = None


def load(folder: str, named_by: str, held: Settings | None = None) -> EvaluatedModel:
    """Loads the newest checkpoint of a training run, or an exported model, by folder or name.

    `named_by` is the flag that names it, for messages. The run must agree with the settings `held`;
    by default its own are taken. Raises a UserError if it cannot be loaded.
    """
    path = checkpoints.workdir_path(shipped.place(folder), named_by)
    name = path.name or "model"
    if checkpoints.is_there(path / DESCRIPTION):
        model = load_model(Path(path))
        known = model.origin.get("settings") or {}
        return EvaluatedModel(name, "model", model, None, model.origin.get("step"), known)
    if named_by != "--workdir" and not checkpoints.is_there(path / checkpoints.FOLDER):
        raise UserError(
            f"{named_by} {folder}: neither a run (it holds no {checkpoints.FOLDER} folder) nor an "
            f"exported model (it holds no {DESCRIPTION}): give one of the two, or the name of a "
            f"model ({', '.join(shipped.known())})"
        )
    params, step, known, config = checkpoints.load_autoencoder(path, held, named_by)
    return EvaluatedModel(name, "model", from_params(config, params), params, step, known)


def untrained(of: EvaluatedModel) -> EvaluatedModel:
    """Returns the same networks with random parameters, drawn with the seed of the run."""
    seed = of.settings.get("train", {}).get("seed", 0)
    params = jax.jit(init_parameters, static_argnums=0)(of.model.config, jax.random.key(seed))
    model = from_params(of.model.config, params)
    return EvaluatedModel("untrained", "control", model, params, 0, of.settings)


def of_model(
    model: EvaluatedModel, qualities: Sequence[float], details: Sequence[float]
) -> list[Point]:
    """Returns a point for each rate and detail that the model offers; () is all or full detail."""
    config, found = model.model.config, []
    for quality in (qualities or RATES) if config.qualities else (None,):
        for detail in details if details and config.fcm_width else (None,):
            parts = {"q": quality, "detail": detail}.items()
            name = ",".join(f"{name}={value:g}" for name, value in parts if value is not None)
            found.append(Point(model.id, name, model.fingerprint, model, quality, detail))
    return found


def of_baseline(
    baseline: str, count: int, same_size: bool, first: Point
) -> tuple[dict[str, dict[str, Any]], list[Point]]:
    """Returns entries of "codecs" for a classical codec, and its points; none if it is missing.

    `count` is the number of qualities, spread over its `sweep`; 0 for all, -1 for none. `same_size`
    adds a point whose files have the size of those of `first`.
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
    number = max(min(count or len(codec.sweep), len(codec.sweep)), 0)
    for place in np.linspace(0, len(codec.sweep) - 1, number).round().astype(int):
        quality = codec.sweep[place]
        found.append(Point(baseline, f"quality {quality}", identity, quality=quality))
    return entries, [] if missing else found


def code(point: Point, row: rows.Row, image: rows.Image, canvases: Canvases, out: Path) -> rows.Row:
    """Codes an image with a model, and writes the decoded picture and the bits of each position.

    The estimated rate is that of the model's own densities, as in training. An exported model
    lacks them: its estimate is the code length under its integer tables.
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
    rows.write_npz(out / row.bits, **by_position._asdict(), key=np.array(row.key))
    rows.write_png(out / row.file, decoded, row.key)
    return row.coded(len(data), seconds, bpp_estimated=estimated / (row.width * row.height))


def code_baseline(
    point: Point, row: rows.Row, image: rows.Image, target_bytes: int | None, out: Path
) -> rows.Row:
    """Codes an image with a classical codec, and writes the decoded picture of the row.

    A point without a quality takes the file nearest in size to `target_bytes`.
    """
    codec = point.codec.removesuffix(SAME_SIZE)
    if point.quality is not None:
        coded = baselines.encode(image, codec, point.quality)
    elif target_bytes is None:
        raise UserError("the first model has no file of this image whose size could be matched")
    else:
        coded = baselines.encode_nearest(image, codec, target_bytes)
    rows.write_png(out / row.file, coded.image, row.key)
    seconds = (coded.seconds_encode, coded.seconds_decode)
    return row.coded(len(coded.data), seconds, setting=coded.setting)
