"""Many files through one model: read ahead and written behind in threads, past the bad ones."""

import argparse
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any

from fa_hific_jax import interrupts
from fa_hific_jax.cli import files, values
from fa_hific_jax.cli.files import Job
from fa_hific_jax.cli.progress import Progress
from fa_hific_jax.cli.runtime import MODEL_VARIABLE
from fa_hific_jax.codec.shipped import DEFAULT
from fa_hific_jax.errors import UserError, one_line, reason, say, shown

# What one file can do to a sound program; JAX reports memory that ran out as a RuntimeError.
PER_FILE = (UserError, OSError, MemoryError, RuntimeError)


def add_arguments(parser: argparse.ArgumentParser, inputs: str, output: str) -> None:
    """Declares the arguments that compressing and decompressing share."""
    parser.add_argument("inputs", nargs="+", type=files.source_name, metavar="INPUT", help=inputs)
    parser.add_argument("-o", "--output", type=files.target_name, metavar="OUT", help=output)
    parser.add_argument(
        "--model",
        type=files.path_name,
        metavar="FOLDER",
        help="model that `fa-hific export` has written; without, that of the environment variable "
        f"{MODEL_VARIABLE}, else {DEFAULT}, which comes with the package",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--force", action="store_true", help="overwrite files that are there")
    existing.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave files that are there and write the others: goes on where a batch was stopped",
    )
    parser.add_argument(
        "--jobs",
        type=values.threads,
        default=2,
        metavar="N",
        help="threads that read and write images beside the network (2); as many images more are "
        "in memory on either side of it",
    )
    parser.add_argument(
        "--mode",
        choices=("auto", "exact", "blend"),
        default="auto",
        help="large images in tiles: exact ones give the pixels of the whole image in less memory, "
        "blended ones matter when decompressing, faster and not quite the same; auto (the default) "
        "takes images whole or in exact tiles, by size",
    )


def run(
    jobs: list[Job],
    pixels: dict[Path, int],
    steps: tuple[Callable[[Job], Any], Callable[[Any], Any], Callable[[Job, Any], None]],
    threads: int,
    progress: Progress,
) -> list[str]:
    """Reads, works on and writes each job; returns a sentence for each that failed.

    Args:
      jobs: in the order of work.
      pixels: of the sources whose size is known, for the progress.
      steps: read(job), work(what was read), write(job, what work gave). Reading and writing happen
        in threads, work in this one, in order.
      threads: how many, and how many images at most wait before and after the work.
      progress: is told of every job that ended, well or badly.
    """
    read, work, write = steps
    failures = []
    writing: deque[tuple[Job, Future]] = deque()

    def settle(job: Job, result: Callable[[], Any]) -> Any:
        try:
            return result()
        except PER_FILE as error:
            failures.append(sentence(job.source, error))
            return None

    def finish_until(count: int) -> None:
        while len(writing) > count:
            job, future = writing.popleft()
            settle(job, future.result)
            progress.advance(pixels.get(job.source, 0))

    pool = ThreadPoolExecutor(threads)
    try:
        for job, future in _ahead(pool, read, jobs, threads):
            interrupts.end_if_asked()
            done = settle(job, lambda future=future: (work(future.result()),))
            if done is None:
                progress.advance(pixels.get(job.source, 0))
                continue
            writing.append((job, pool.submit(write, job, *done)))
            finish_until(threads)
        finish_until(0)
    finally:
        # After an interrupt what is half written is finished, and what has not begun is dropped. A
        # reader may never return.
        pool.shutdown(wait=False, cancel_futures=True)
        wait(future for _, future in writing if not future.cancelled())
    return failures


def end(failures: Iterable[str]) -> None:
    """Prints the failures, one line each, and exits with 1 where there are any."""
    failures = list(failures)
    for sentence in failures:
        say(f"error: {sentence}")
    if failures:
        sys.exit(1)


def _ahead(
    pool: ThreadPoolExecutor, read: Callable[[Job], Any], jobs: list[Job], count: int
) -> Iterator[tuple[Job, Future]]:
    """The jobs with their reading under way, and that of at most `count` more."""
    rest = iter(jobs)
    reading = deque((job, pool.submit(read, job)) for job in islice(rest, count))
    while reading:
        this = reading.popleft()
        reading.extend((job, pool.submit(read, job)) for job in islice(rest, 1))
        yield this


def sentence(path: Path, error: BaseException) -> str:
    """What went wrong with the file, in one line that begins with its name."""
    name, text = shown(path), reason(error)
    if isinstance(error, OSError) and error.strerror:
        other = error.filename not in (None, str(path))
        text = error.strerror + (f" ({shown(error.filename)})" if other else "")
    elif isinstance(error, UserError):
        text = str(error).removeprefix(f"{path}: ")
    elif isinstance(error, RuntimeError):
        text = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return f"{name}: {one_line(text).removeprefix(f'{name}: ')}"
