"""The images of one process: coded, measured, noted in the journal, one task after the other."""

import collections
import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fa_hific_jax import __version__
from fa_hific_jax.codec.programs import padded_shape
from fa_hific_jax.data.sources import Source
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import classical, coding
from fa_hific_jax.evaluation.classical import Image
from fa_hific_jax.evaluation.journal import Journal
from fa_hific_jax.evaluation.meter import Meter
from fa_hific_jax.evaluation.plan import Task
from fa_hific_jax.evaluation.workers import Workers, here, result

Row = dict[str, Any]


def original_file(image: str) -> str:
    """Where an image is kept, relative to the folder of the results."""
    return f"originals/{_safe(image)}.png"


def features_file(picture: str) -> str:
    """Where the features of a picture are kept, an original or a reconstruction."""
    return f"features/{picture.replace('/', '.')}.npz"


class Picture(NamedTuple):
    """An image of the source that can be read."""

    index: int
    name: str
    sha256: str
    height: int
    width: int


class _Begun(NamedTuple):
    """A task of a picture that is being coded, or was by an earlier run."""

    picture: Picture
    image: Image
    task: Task
    head: Future  # what a row says of the coding


class Share:
    """What this process does of an evaluation: `run`, then `content`."""

    def __init__(self, tasks: Sequence[Task], source: Source, meter: Meter, out: Path):
        self._rows: list[tuple[int, int, Row]] = []
        self._skipped: list[dict[str, str]] = []
        self._failed: list[dict[str, str]] = []
        self._tasks, self._source, self._meter, self._out = tasks, source, meter, out
        self._journal = Journal(out, jax.process_index())
        self._warm: set[tuple[str, Any]] = set()

    def run(self, indexes: Sequence[int], jobs: int, say: Callable[[str], None]) -> None:
        """Does all tasks of the images of these numbers; `say` hears of each that is finished."""
        pictures = self._look_at(indexes)
        self._images = len(pictures)
        self._canvases = self._plan(pictures)
        progress = _Progress([p for p in pictures if not self._is_finished(p)], len(pictures), say)
        # So many tasks are under way while this process measures the first of them.
        ahead, begun = (2 * jobs if jobs > 1 else 0), collections.deque()
        with Workers(jobs) as workers:
            for picture in pictures:
                for each in self._begin(picture, workers):
                    begun.append(each)
                    while len(begun) > ahead:
                        self._finish(begun.popleft(), progress)
            while begun:
                self._finish(begun.popleft(), progress)
        self._journal.close()

    def content(self) -> dict[str, Any]:
        """What came of it.

        images: how many could be read.
        rows: (number of the image, number of the task, row) of all that could be done.
        skipped: {"image", "reason"} of images that cannot be read.
        failed: {"image", "codec", "point", "reason"} of what one codec could not do.
        """
        return {
            "images": self._images,
            "rows": self._rows,
            "skipped": self._skipped,
            "failed": self._failed,
        }

    def _look_at(self, indexes: Sequence[int]) -> list[Picture]:
        """The images that can be read; what they hold decides what is finished."""
        pictures = []
        for index in indexes:
            name = self._source.names[index]
            try:
                image = self._source[index]
            except UserError as error:
                self._skipped.append({"image": name, "reason": str(error)})
                continue
            pictures.append(Picture(index, name, classical.hash_of(image), *image.shape[:2]))
        return pictures

    def _plan(self, pictures: Sequence[Picture]) -> tuple[tuple[int, int], ...]:
        """Canvases on which images of many sizes share compiled programs."""
        model = next(task.model for task in self._tasks if task.model)[0].model
        return model.plan([(picture.height, picture.width) for picture in pictures])

    def _is_finished(self, picture: Picture) -> bool:
        rows = [self._known(picture, task) for task in self._tasks]
        return all(row is not None and self._is_measured(row) for row in rows)

    def _key(self, picture: Picture, task: Task) -> str:
        """Of everything that decides what a task makes of an image."""
        versions = [__version__, jax.__version__]
        parts = [picture.sha256, task.codec, task.point, task.fingerprint, versions]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _known(self, picture: Picture, task: Task) -> Row | None:
        """The row of an earlier run, if its pictures are still there."""
        files = self._files(picture, task)
        row = self._journal.get(self._key(picture, task), files["file"])
        there = all((self._out / file).is_file() for file in files.values() if file)
        return row if row and there else None

    def _is_measured(self, row: Row) -> bool:
        features = self._out / features_file(row["file"])
        return row.get("measured_with") == self._meter.key and self._meter.has_features(features)

    def _begin(self, picture: Picture, workers: Workers):
        """Codes with the models, hands the rest to the workers; yields what is begun."""
        image = self._source[picture.index]
        self._keep_original(picture, image)
        first: Future = Future()
        for task in self._tasks:
            known = self._known(picture, task)
            if known is not None:
                head = here(lambda known=known: known)
            elif task.model is not None:
                head = here(self._code, task, picture, image)
            else:
                head = self._submit(workers, task, picture, image, first)
            if task is self._tasks[0]:
                first = head
            yield _Begun(picture, image, task, head)

    def _keep_original(self, picture: Picture, image: Image) -> None:
        file = original_file(picture.name)
        path, features = self._out / file, self._out / features_file(file)
        if not path.is_file() or classical.hash_of(classical.read_png(path)) != picture.sha256:
            features.unlink(missing_ok=True)
            classical.write_png(path, image)
        if not self._meter.has_features(features):
            self._meter.keep_features(image, features)

    def _code(self, task: Task, picture: Picture, image: Image) -> Row:
        assert task.model is not None
        candidate, point = task.model
        program = (task.codec, _shape(picture, self._canvases))
        if program not in self._warm:
            self._warm.add(program)
            coding.warm_up(candidate, point, image, self._canvases)
        files = [self._out / file for file in self._files(picture, task).values()]
        return coding.with_model(candidate, point, image, self._canvases, *files)

    def _submit(
        self, workers: Workers, task: Task, picture: Picture, image: Image, first: Future
    ) -> Future:
        assert task.baseline is not None
        codec, quality = task.baseline
        target = 0
        if quality is None:
            if first.exception():
                return here(_raise, "there is no file of the first model to be as large as")
            target = first.result()["bytes"]
        file = self._out / self._files(picture, task)["file"]
        return workers.submit(classical.with_baseline, codec, quality, target, image, file)

    def _files(self, picture: Picture, task: Task) -> dict[str, Any]:
        point = task.point.replace(" ", "_")
        name = _safe(".".join(filter(None, [picture.name, task.codec, point])))
        bits = f"bits/{name}.npz" if task.model else None
        return {"file": f"reconstructions/{name}.png", "bits": bits}

    def _finish(self, begun: _Begun, progress: "_Progress") -> None:
        """Waits until a task is coded, measures it and notes the row."""
        picture, _, task, head = begun
        try:
            row = result(head) | self._files(picture, task)
            if not self._is_measured(row):
                row = self._measured(begun, row)
                self._journal.add(self._key(picture, task), row)
            self._rows.append((picture.index, self._tasks.index(task), row))
        except Exception as error:
            if not isinstance(error, UserError) and not coding.out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
            where = {"image": picture.name, "codec": task.codec, "point": task.point}
            self._failed.append(where | {"reason": reason})
        if task is self._tasks[-1]:
            progress.finished(
                picture, [r for i, _, r in self._rows[-len(self._tasks) :] if i == picture.index]
            )

    def _measured(self, begun: _Begun, head: Row) -> Row:
        picture, image, task, _ = begun
        decoded = classical.read_png(self._out / head["file"])
        values, not_measured = self._meter.pair(image, decoded)
        self._meter.keep_features(decoded, self._out / features_file(head["file"]))
        return head | {
            "image": picture.name,
            "sha256": picture.sha256,
            "codec": task.codec,
            "point": task.point,
            "width": picture.width,
            "height": picture.height,
            "values": values,
            "not_measured": not_measured,
            "measured_with": self._meter.key,
        }


class _Progress:
    """How far it is, how fast it goes, and when it will be done."""

    def __init__(self, unfinished: Sequence[Picture], count: int, say: Callable[[str], None]):
        self._unfinished = {picture.index for picture in unfinished}
        self._begun = len(unfinished)
        self._count, self._say, self._start = count, say, time.monotonic()
        if self._begun < count:
            say(f"{count - self._begun} of {count} images are finished already")

    def finished(self, picture: Picture, rows: Sequence[Row]) -> None:
        if picture.index not in self._unfinished:
            return
        self._unfinished.remove(picture.index)
        done = self._begun - len(self._unfinished)
        rate = done / (time.monotonic() - self._start)
        first = rows[0] if rows else None
        psnr = first["values"].get("psnr") if first else None
        told = f"{first['codec']} {first['bpp']:.3f} bpp" if first else "nothing"
        self._say(
            f"image {self._count - len(self._unfinished)}/{self._count}  {picture.name}  {told}"
            + (f"  {psnr:.2f} dB" if psnr is not None else "")
            + f"  {60 * rate:.1f} images/min  {len(self._unfinished) / rate:.0f} s left"
        )


def _shape(picture: Picture, canvases: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Of the program that codes a picture: of the canvas on which it fits, or its own."""
    padded = padded_shape(picture.height, picture.width)
    fitting = [shape for shape in canvases if padded[0] <= shape[0] and padded[1] <= shape[1]]
    return min(fitting, key=math.prod, default=padded)


def _safe(name: str) -> str:
    """As part of a file's name."""
    return re.sub(r"[/\\:\0]", "_", name)


def _raise(sentence: str) -> None:
    raise UserError(sentence)
