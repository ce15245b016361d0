"""The loop over images and points: codes, measures, and logs each row as soon as it is known."""

import contextlib
import dataclasses
import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax

from fa_hific_jax import __version__, interrupts, metrics
from fa_hific_jax.codec.programs import padded_shape
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import bits, images, points, workers
from fa_hific_jax.evaluation.features import Features
from fa_hific_jax.evaluation.merging import Share
from fa_hific_jax.evaluation.points import Point
from fa_hific_jax.evaluation.prepare import Evaluation
from fa_hific_jax.evaluation.rows import Row, RowLog

Coded = Callable[[], Row]  # waits until an image is coded, unless an earlier run has coded it


class SourceImage(NamedTuple):
    """An image of the source that can be read."""

    index: int
    name: str
    sha256: str
    height: int
    width: int


class Task(NamedTuple):
    """An image to be coded at a point."""

    image: SourceImage
    point: Point
    original: images.Image
    row: Row  # names the files to write; neither coded nor measured


class Loop:
    """Codes and measures images at every point of an evaluation, resuming earlier runs.

    The picture and the bits of a row carry its key. So a row of an earlier run is reused only if
    both are there, at whatever moment that run was killed, and if nothing has overwritten them.
    """

    def __init__(
        self, evaluation: Evaluation, out: Path, log: RowLog, features: Features, share: Share
    ):
        self._points, self._source = evaluation.points, evaluation.source
        self._weights, self._jobs = evaluation.weights, evaluation.jobs
        self._out, self._log, self._features, self._share = out, log, features, share
        self._compiled: set[tuple[str, tuple[int, int]]] = set()

    def run(self, indexes: Sequence[int], say: Callable[[str], None]) -> None:
        """Codes and measures the images with these indexes, and reports progress through `say`."""
        readable = self._readable(indexes)
        self._share.images = len(readable)
        model = next(point.model.model for point in self._points if point.model)
        self._canvases = model.plan([(image.height, image.width) for image in readable])
        finished = {image for image in readable if self._is_finished(image)}
        progress, first = _progress(len(readable), len(finished), say), None
        # Number of tasks that the workers already have while this process measures.
        ahead = 2 * self._jobs if self._jobs > 1 else 0
        with workers.executor(self._jobs) as executor:
            begun = (each for image in readable for each in self._begin(image, executor))
            for task, coded in _ahead(begun, ahead):
                interrupts.end_if_asked()
                row = self._finish(task, coded)
                first = row if task.point is self._points[0] else first
                if task.point is self._points[-1] and task.image not in finished:
                    progress(task.image.name, first)

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
        rows = (self._known(_uncoded(image, point)) for point in self._points)
        return all(row and self._is_measured(row) for row in rows)

    def _known(self, row: Row) -> Row | None:
        """Returns the row of an earlier run, if its picture and its bits are still there."""
        found = self._log.get(row.key, self._features.measured_with)
        if found is None or images.key_of(self._out / found.file) != row.key:
            return None
        return found if not found.bits or bits.key_of(self._out / found.bits) == row.key else None

    def _is_measured(self, row: Row) -> bool:
        return row.measured_with == self._features.measured_with

    def _begin(self, image: SourceImage, executor: Executor) -> Iterator[tuple[Task, Coded]]:
        """Yields the image at each point, where classical codecs have already been started."""
        original = self._source[image.index]
        file = images.original_file(image.name)
        if images.key_of(self._out / file) != image.sha256:
            images.write_png(self._out / file, original, image.sha256)
        self._features.of(file)
        first = None
        for point in self._points:
            task = Task(image, point, original, _uncoded(image, point))
            row = self._known(task.row)
            coded = (lambda row=row: row) if row else self._code(task, executor, first)
            first = first or coded
            yield task, coded

    def _code(self, task: Task, executor: Executor, first: Coded | None) -> Coded:
        """Returns what waits for the row; `first` is that of the first model's first point."""
        if task.point.model:
            return cache(partial(self._code_with_model, task))
        codec, quality, target = task.point.codec, task.point.quality, None
        if first and quality is None:
            codec = codec.removesuffix(points.SAME_SIZE)
            with contextlib.suppress(Exception):  # reported where the first point is finished
                target = first().bytes
        arguments = (codec, quality, target, task.row, task.original, self._out)
        return executor.submit(workers.code_baseline, *arguments).result

    def _code_with_model(self, task: Task) -> Row:
        """Codes twice if the program is new: compilation is not coding time."""
        padded = padded_shape(task.image.height, task.image.width)
        fitting = [c for c in self._canvases if padded[0] <= c[0] and padded[1] <= c[1]]
        program = (task.point.codec, min(fitting, key=math.prod, default=padded))
        if program not in self._compiled:
            self._compiled.add(program)
            points.through(task.point, task.original, self._canvases)
        return points.code(task.point, task.row, task.original, self._canvases, self._out)

    def _finish(self, task: Task, coded: Coded) -> Row | None:
        """Waits until an image is coded, measures it, and logs the row."""
        try:
            row = coded()
            if not self._is_measured(row):
                row = self._log.add(self._measured(task.original, row))
        except Exception as error:
            if not isinstance(error, UserError) and not _out_of_memory(error):
                raise
            where = {"image": task.row.image, "codec": task.row.codec, "point": task.row.point}
            self._share.failed.append(where | {"reason": str(error).partition("\n")[0]})
            return None
        self._share.keys.append((task.image.index, self._points.index(task.point), row.key))
        return row

    def _measured(self, original: images.Image, row: Row) -> Row:
        decoded = images.read_png(self._out / row.file)
        values, missing = metrics.measure(original, decoded, self._weights)
        self._features.of(row.file)
        found = {"values": values, "not_measured": missing}
        return dataclasses.replace(row, **found, measured_with=self._features.measured_with)


def _uncoded(image: SourceImage, point: Point) -> Row:
    """Returns the row of an image at a point, before it is coded."""
    versions = [__version__, jax.__version__]
    # With the name: of two images with the same pixels, each has its own row.
    parts = [image.name, image.sha256, point.codec, point.name, point.fingerprint, versions]
    file, bits_file = images.decoded_files(image.name, point.codec, point.name)
    return Row(
        file=file,
        bits=bits_file if point.model else None,
        image=image.name,
        sha256=image.sha256,
        codec=point.codec,
        point=point.name,
        width=image.width,
        height=image.height,
        key=hashlib.sha256(json.dumps(parts).encode()).hexdigest(),
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


def _ahead(tasks: Iterable[tuple[Task, Coded]], count: int) -> Iterator[tuple[Task, Coded]]:
    """Yields the same tasks, but takes `count` of them in advance."""
    waiting = deque()
    for task in tasks:
        waiting.append(task)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    )
