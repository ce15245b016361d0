"""The loop over images and points: codes, measures, and logs each row as soon as it is known."""

import collections
import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax

from fa_hific_jax import __version__, metrics
from fa_hific_jax.codec.programs import padded_shape
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import features, images, points, workers
from fa_hific_jax.evaluation.merging import Share
from fa_hific_jax.evaluation.points import BaselinePoint, ModelPoint, Point
from fa_hific_jax.evaluation.prepare import Evaluation
from fa_hific_jax.evaluation.rows import Coding, Row, RowLog


Coded = Callable[[], Coding | Row]
"""Returns the result of coding, or the row of an earlier run, as soon as it is there."""


class SourceImage(NamedTuple):
    """An image of the source that can be read."""

    index: int
    name: str
    sha256: str
    height: int
    width: int

    def key(self, point: Point) -> str:
        """Hashes everything that determines what the image becomes at a point."""
        versions = [__version__, jax.__version__]
        parts = [self.sha256, point.codec, point.name, point.fingerprint, versions]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class _Task(NamedTuple):
    """An image at a point."""

    image: SourceImage
    original: images.Image
    point: Point
    coding: Coded


class Loop:
    """Codes and measures images at every point of an evaluation, resuming earlier runs.

    A decoded picture carries the key of its row. The picture and its features are removed before
    an image is coded, and the picture is written last. So a row of an earlier run is taken only if
    all that belongs to it is there, at whatever moment that run was killed.
    """

    def __init__(self, evaluation: Evaluation, out: Path, log: RowLog):
        self._points, self._source = evaluation.points, evaluation.source
        self._weights, self._jobs = evaluation.weights, evaluation.jobs
        self._out, self._log, self._share = out, log, Share()
        self._compiled: set[tuple[str, tuple[int, int]]] = set()
        self.measured_with = features.measured_with(evaluation.weights)

    def run(self, indexes: Sequence[int], say: Callable[[str], None]) -> Share:
        """Does all points of the images with these numbers, and says how far it has come."""
        readable = self._readable(indexes)
        self._share.images = len(readable)
        model = next(p.model.model for p in self._points if isinstance(p, ModelPoint))
        self._canvases = model.plan([(image.height, image.width) for image in readable])
        finished = {image for image in readable if self._is_finished(image)}
        progress, first = _progress(len(readable), len(finished), say), None
        # So many tasks are with the workers while this process measures.
        ahead = 2 * self._jobs if self._jobs > 1 else 0
        with workers.executor(self._jobs) as executor:
            tasks = (task for image in readable for task in self._tasks(image, executor))
            for task in _ahead(tasks, ahead):
                row = self._finish(task)
                first = row if task.point is self._points[0] else first
                if task.point is self._points[-1] and task.image not in finished:
                    progress(task.image.name, first)
        return self._share

    def _readable(self, indexes: Sequence[int]) -> list[SourceImage]:
        found = []
        for index in indexes:
            name = self._source.names[index]
            try:
                image = self._source[index]
                found.append(SourceImage(index, name, images.sha256_of(image), *image.shape[:2]))
            except UserError as error:
                self._share.skipped.append({"image": name, "reason": str(error)})
        return found

    def _is_finished(self, image: SourceImage) -> bool:
        rows = (self._known(image, point) for point in self._points)
        return all(row is not None and self._is_measured(row) for row in rows)

    def _known(self, image: SourceImage, point: Point) -> Row | None:
        """Returns the row of an earlier run, if its picture is still there."""
        row = self._log.get(image.key(point), self.measured_with)
        return row if row and images.key_of(self._out / row.file) == row.key else None

    def _is_measured(self, row: Row) -> bool:
        kept = features.are_kept(self._weights, self._out, row.file)
        return kept and row.measured_with == self.measured_with

    def _tasks(self, image: SourceImage, executor: Executor) -> Iterator[_Task]:
        """Yields the image at each point; classical codecs have been started by then."""
        original = self._source[image.index]
        file = images.original_file(image.name)
        if images.key_of(self._out / file) != image.sha256:
            features.remove(self._out, file)
            images.write_png(self._out / file, original, image.sha256)
        if not features.are_kept(self._weights, self._out, file):
            features.keep(self._weights, original, self._out, file)
        first = None
        for point in self._points:
            row = self._known(image, point)
            coding = (
                (lambda row=row: row)
                if row
                else self._begin(image, original, point, executor, first)
            )
            first = first or coding
            yield _Task(image, original, point, coding)

    def _begin(
        self,
        image: SourceImage,
        original: images.Image,
        point: Point,
        executor: Executor,
        first: Coded | None,
    ) -> Coded:
        """Returns what waits for the result; `first` is that of the first model's first point."""
        picture, bits = images.decoded_files(image.name, point.codec, point.name)
        file, key = self._out / picture, image.key(point)
        features.remove(self._out, picture)
        file.unlink(missing_ok=True)
        if isinstance(point, ModelPoint):
            return cache(partial(self._code, image, original, point, file, self._out / bits))
        assert isinstance(point, BaselinePoint) and first is not None
        target = _size(first) if point.quality is None else None
        arguments = (point.baseline, point.quality, target, original, file, key)
        return executor.submit(workers.code_baseline, *arguments).result

    def _code(
        self, image: SourceImage, original: images.Image, point: ModelPoint, file: Path, bits: Path
    ) -> Coding:
        """Codes with a model, twice if its program is new: compilation is not coding time."""
        padded = padded_shape(image.height, image.width)
        fitting = [c for c in self._canvases if padded[0] <= c[0] and padded[1] <= c[1]]
        program = (point.codec, min(fitting, key=math.prod, default=padded))
        if program not in self._compiled:
            self._compiled.add(program)
            point.decode(point.encode(original, self._canvases), self._canvases)
        return points.code(point, original, self._canvases, file, bits, image.key(point))

    def _finish(self, task: _Task) -> Row | None:
        """Waits until an image is coded, measures it, and logs the row."""
        image, _, point, coding = task
        try:
            row = coding()
            if not isinstance(row, Row) or not self._is_measured(row):
                row = self._measured(task, row)
                self._log.add(row)
        except Exception as error:
            if not isinstance(error, UserError) and not _out_of_memory(error):
                raise
            where = {"image": image.name, "codec": point.codec, "point": point.name}
            self._share.failed.append(where | {"reason": str(error).partition("\n")[0]})
            return None
        self._share.keys.append((image.index, self._points.index(point), row.key))
        return row

    def _measured(self, task: _Task, coding: Coding | Row) -> Row:
        image, original, point, _ = task
        picture, bits = images.decoded_files(image.name, point.codec, point.name)
        decoded = images.read_png(self._out / picture)
        values, not_measured = metrics.measure(original, decoded, self._weights)
        features.keep(self._weights, decoded, self._out, picture)
        if isinstance(coding, Row):
            measured = {"values": values, "not_measured": not_measured}
            return dataclasses.replace(coding, **measured, measured_with=self.measured_with)
        pixels, estimated = image.height * image.width, coding.estimated_bits
        return Row(
            bytes=coding.bytes,
            bpp=8 * coding.bytes / pixels,
            bpp_estimated=None if estimated is None else estimated / pixels,
            setting=coding.setting,
            seconds_encode=coding.seconds_encode,
            seconds_decode=coding.seconds_decode,
            file=picture,
            bits=bits if isinstance(point, ModelPoint) else None,
            image=image.name,
            sha256=image.sha256,
            codec=point.codec,
            point=point.name,
            width=image.width,
            height=image.height,
            values=values,
            not_measured=not_measured,
            key=image.key(point),
            measured_with=self.measured_with,
        )


def _progress(
    count: int, finished: int, say: Callable[[str], None]
) -> Callable[[str, Row | None], None]:
    """Returns a function that reports an image and its first row, the speed and the time left."""
    start, before = time.monotonic(), finished
    if finished:
        say(f"{finished} of {count} images are finished already")

    def report(image: str, row: Row | None) -> None:
        nonlocal finished
        finished += 1
        rate = (finished - before) / (time.monotonic() - start)
        text = f"{row.codec} {row.bpp:.3f} bpp" if row else "nothing"
        if row and (psnr := row.values.get("psnr")) is not None:
            text += f"  {psnr:.2f} dB"
        text += f"  {60 * rate:.1f} images/min  {(count - finished) / rate:.0f} s left"
        say(f"image {finished}/{count}  {image}  {text}")

    return report


def _ahead(tasks: Iterable[_Task], count: int) -> Iterator[_Task]:
    """Yields the same tasks, but takes `count` of them in advance."""
    waiting = collections.deque()
    for task in tasks:
        waiting.append(task)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def _size(coding: Coded) -> int | None:
    try:
        return coding().bytes
    except Exception:
        return None  # reported where this task is finished


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    )
