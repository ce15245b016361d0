"""The loop over images and points: codes, measures, and logs each row as soon as it is known."""

import contextlib
import dataclasses
import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fa_hific_jax import __version__, interrupts, metrics
from fa_hific_jax.errors import UserError, out_of_memory
from fa_hific_jax.evaluation import points, rows
from fa_hific_jax.evaluation.points import Point
from fa_hific_jax.evaluation.prepare import Evaluation
from fa_hific_jax.evaluation.results import grouped, point_of
from fa_hific_jax.evaluation.rows import Image, Row, RowLog
from fa_hific_jax.metrics.weights import digest
from fa_hific_jax.models import padded_shape

Begun = tuple[int, Image, list[Callable[[], Row]]]
"""Number of an image, its pixels, and for each point what waits for its coded row."""


@dataclasses.dataclass
class Share:
    """Work of one process."""

    # (number of the image, number of the point, entry of "rows" in the results)
    rows: list[tuple[int, int, dict[str, Any]]] = dataclasses.field(default_factory=list)
    # {"image", "reason"} of images that cannot be read
    skipped: list[dict[str, str]] = dataclasses.field(default_factory=list)
    # {"image", "codec", "point", "reason"} of what one codec could not do
    failed: list[dict[str, str]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Loop:
    """Codes and measures images at every point of an evaluation, resuming earlier runs.

    `identity` is a hash that changes with the metrics and with the weights of their networks.
    """

    evaluation: Evaluation
    out: Path
    log: RowLog
    share: Share

    def __post_init__(self):
        networks = self.evaluation.weights.networks()
        digests = {name: digest(params.weights) for name, params in networks.items()}
        described = json.dumps([list(metrics.DESCRIPTIONS), digests], sort_keys=True)
        self.identity = hashlib.sha256(described.encode()).hexdigest()[:16]
        self._canvases: points.Canvases = ()
        self._compiled: set[tuple[str, tuple[int, int]]] = set()  # codec and canvas

    def run(self, indexes: Sequence[int]) -> None:
        """Codes and measures the images with these numbers; process 0 prints the progress."""
        images = {index: found for index in indexes if (found := self._rows_of(index))}
        model = next(point.model.model for point in self.evaluation.points if point.model)
        self._canvases = model.plan(
            [(found[0].height, found[0].width) for found in images.values()]
        )
        wanted = {self.identity}
        left = [i for i, found in images.items() if {r.measured_with for r in found} != wanted]
        done, start = len(images) - len(left), time.monotonic()
        if done:
            _say(f"{done} of {len(images)} images are finished already")
        pool = ThreadPoolExecutor(self.evaluation.jobs)
        try:
            for index, original, coded in self._begun(images, pool):
                places = enumerate(zip(images[index], coded, strict=True))
                found = [self._finish(original, row, wait, (index, n)) for n, (row, wait) in places]
                if index in left:
                    done += 1
                    rate = (done + len(left) - len(images)) / (time.monotonic() - start)
                    told = f"{60 * rate:.1f} images/min  {(len(images) - done) / rate:.0f} s left"
                    name = f"image {done}/{len(images)}  {images[index][0].image}"
                    _say(f"{name}  {_said(found[0])}  {told}")
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _rows_of(self, index: int) -> list[Row]:
        """Returns rows of earlier runs, or rows to be coded; none if the image is unreadable."""
        source, found = self.evaluation.source, []
        image = source.names[index]
        try:
            original = source[index]
        except UserError as error:
            self.share.skipped.append({"image": image, "reason": str(error)})
            return []
        height, width, _ = original.shape
        pixels = f"{height}x{width}x3".encode() + original.tobytes()
        sha256 = hashlib.sha256(pixels).hexdigest()
        for point in self.evaluation.points:
            # With the name: of two images with the same pixels, each has its own row.
            parts = [image, sha256, point.codec, point.name, point.fingerprint]
            text = json.dumps([*parts, [__version__, jax.__version__]])
            key = hashlib.sha256(text.encode()).hexdigest()
            row = self.log.get(key, self.identity)
            if row is None or not row.is_kept(self.out):
                file, bits = rows.decoded_files(image, point.codec, point.name)
                row = Row(
                    file=file,
                    bits=bits if point.model else None,
                    image=image,
                    sha256=sha256,
                    codec=point.codec,
                    point=point.name,
                    width=width,
                    height=height,
                    key=key,
                )
            found.append(row)
        return found

    def _begun(self, images: Mapping[int, list[Row]], pool: ThreadPoolExecutor) -> Iterator[Begun]:
        """Yields each image, while classical codecs already code the next ones in threads."""
        jobs, waiting = self.evaluation.jobs, deque()
        ahead = 1 + 2 * jobs // len(self.evaluation.points) if jobs > 1 else 0
        for index, found in images.items():
            waiting.append(self._begin(index, found, pool))
            if len(waiting) > ahead:
                yield waiting.popleft()
        yield from waiting

    def _begin(self, index: int, found: Sequence[Row], pool: ThreadPoolExecutor) -> Begun:
        """Reads an image, and starts what classical codecs have to do with it."""
        original = self.evaluation.source[index]
        file, sha256 = rows.original_file(found[0].image), found[0].sha256
        if rows.key_of(self.out / file) != sha256:
            rows.write_png(self.out / file, original, sha256)
        self.features(file)
        coded: list[Callable[[], Row]] = []
        for point, row in zip(self.evaluation.points, found, strict=True):
            if row.measured_with:
                coded.append(partial(dataclasses.replace, row))
            elif point.model:
                coded.append(cache(partial(self._code_with_model, point, row, original)))
            else:
                target = None
                if point.quality is None:
                    with contextlib.suppress(Exception):  # reported where that point is finished
                        target = coded[0]().bytes
                call = partial(points.code_baseline, point, row, original, target, self.out)
                # A single job takes its turn, so that nothing else disturbs the times.
                coded.append(pool.submit(call).result if self.evaluation.jobs > 1 else call)
        return index, original, coded

    def _code_with_model(self, point: Point, row: Row, original: Image) -> Row:
        """Codes twice if the program is new: compilation is not coding time."""
        padded = padded_shape(row.height, row.width)
        fitting = [c for c in self._canvases if padded[0] <= c[0] and padded[1] <= c[1]]
        program = (point.codec, min(fitting, key=math.prod, default=padded))
        if program not in self._compiled:
            self._compiled.add(program)
            points.code(point, row, original, self._canvases, self.out)
        return points.code(point, row, original, self._canvases, self.out)

    def _finish(
        self, original: Image, row: Row, coded: Callable[[], Row], place: tuple[int, int]
    ) -> Row | None:
        """Waits until an image is coded at a point, measures it, and logs the row."""
        interrupts.end_if_asked()
        try:
            found = self.log.add(self._measured(coded(), original))
        except Exception as error:
            if not isinstance(error, UserError) and not out_of_memory(error):
                raise
            where = {"image": row.image, "codec": row.codec, "point": row.point}
            self.share.failed.append(where | {"reason": str(error).partition("\n")[0]})
            return None
        self.share.rows.append((*place, found.entry()))
        return found

    def _measured(self, row: Row, original: Image) -> Row:
        if row.measured_with == self.identity:
            return row
        decoded = rows.read_png(self.out / row.file)
        values, missing = metrics.measure(original, decoded, self.evaluation.weights)
        self.features(row.file)
        return dataclasses.replace(
            row, values=values, not_measured=missing, measured_with=self.identity
        )

    def features(self, picture: str) -> Mapping[str, np.ndarray]:
        """Returns the features of a picture for metrics of sets, by network.

        They are computed once and kept in a file, with the key of the picture.
        """
        weights = self.evaluation.weights
        if weights.networks().keys().isdisjoint(("alex", "inception")):
            return {}
        file = self.out / f"features/{picture.replace('/', '.')}.npz"
        origin = f"{rows.key_of(self.out / picture)} {self.identity}"
        found = rows.read_npz(file)
        if found.pop("identity", None) != origin:
            found = dict(metrics.image_features(weights, rows.read_png(self.out / picture)))
            rows.write_npz(file, identity=np.array(origin), **found)
        return found

    def sets(self, entries: Iterable[Mapping[str, Any]], images: int) -> list[dict[str, Any]]:
        """Returns the metrics of sets of each point that has rows of so many images."""
        found = []
        for (codec, point), of_point in grouped(entries, point_of).items():
            originals = [self.features(rows.original_file(row["image"])) for row in of_point]
            decoded = [self.features(row["file"]) for row in of_point]
            for entry in metrics.set_metrics(self.evaluation.weights, originals, decoded):
                if len(of_point) < images:
                    reason = f"of {images} images only {len(of_point)} could be coded"
                    entry |= {"value": None, "not_measured": reason}
                found.append({"codec": codec, "point": point} | entry)
        return found


def _said(row: Row | None) -> str:
    if row is None:
        return "nothing"
    psnr = row.values.get("psnr")
    return f"{row.codec} {row.bpp:.3f} bpp" + ("" if psnr is None else f"  {psnr:.2f} dB")


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)
