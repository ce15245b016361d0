"""Codes many files with one model: threads read ahead and write behind, failures do not stop it."""

import argparse
import contextlib
import functools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from fa_hific_jax import interrupts
from fa_hific_jax.cli import files, runtime
from fa_hific_jax.cli.files import Job
from fa_hific_jax.cli.progress import Progress
from fa_hific_jax.codec import shipped
from fa_hific_jax.errors import PER_FILE, UserError, about, say
from fa_hific_jax.writing import TargetExists


class Steps(NamedTuple):
    """What a command does with each file; threads call `read` and `write`."""

    plan: Callable[..., Any]  # plan(heights and widths of all images), by the model
    size: Callable[..., tuple[int, int]]  # size(open file), height and width
    read: Callable[..., Any]  # read(job, open file)
    work: Callable[..., Any]  # work(result of read, plan); in the order of the files
    write: Callable[..., None]  # write(job, result of work)


def model_at_rate(args: argparse.Namespace) -> tuple[str, Any, Callable[..., tuple[bytes, str]]]:
    """Returns name and model for --quality and --bpp, and a function that compresses at that rate.

    compress(image, reserved=0, **options of Model.compress) returns the file, and the name of the
    model that made it if --model is a family of models, else "". `reserved` bytes will be added to
    the file. The model of a family is a `several.ByRate`.

    Raises:
      UserError: there is no such model, or it does not have what the arguments ask for.
    """
    name = shipped.model_to_use(args.model)
    if members := shipped.members_of(name):
        from fa_hific_jax.codec.several import ByRate

        if args.bpp is None:
            raise UserError(
                f"{name}: has one model for each rate: give --bpp, or one of them as --model: "
                f"{', '.join(member.name for member in members)}"
            )
        model = ByRate(members)
        return name, model, functools.partial(model.compress, bpp=args.bpp)
    from fa_hific_jax.codec.model_folder import load_model

    model = load_model(name)
    if (args.quality, args.bpp) != (None, None) and not model.config.qualities:
        raise UserError(
            f"{name}: this model has a single rate: omit --quality and --bpp, or use a model that "
            "was trained with model.qualities"
        )

    def compress(image: Any, *, reserved: int = 0, **options: Any) -> tuple[bytes, str]:
        quality = args.quality
        if args.bpp is not None:
            rest = {name: value for name, value in options.items() if name != "plan"}
            quality = model.quality_for(image, args.bpp, reserved=reserved, **rest)
        return model.compress(image, quality=quality, **options), ""

    return name, model, compress


def code(
    args: argparse.Namespace,
    jobs: list[Job],
    unread: list[str],
    steps_of: Callable[[argparse.Namespace, Callable[[str], None]], Steps],
) -> None:
    """Codes the jobs; exits with code 1 after naming those that failed, and `unread`.

    steps_of(args, say) loads the model and returns the steps. say(line) prints a line above the
    progress.
    """
    if not jobs:
        return end(unread)
    with files.open_streams(jobs) as contents:
        runtime.use_compile_cache()
        progress = Progress(len(jobs))
        steps = steps_of(args, progress.say)
        sizes = {}
        for job in jobs:  # A source whose size cannot be read fails when its turn comes.
            with (
                contextlib.suppress(UserError, OSError),
                files.opened(job.source, contents) as file,
            ):
                sizes[job.source] = steps.size(file)
        plan = steps.plan(list(sizes.values()))
        pixels = {source: height * width for source, (height, width) in sizes.items()}
        progress.pixels = sum(pixels.values())
        existing = (TargetExists,) if args.skip_existing else ()  # by another process

        def read(job: Job) -> Any:
            with files.opened(job.source, contents) as file:
                return steps.read(job, file)

        def write(job: Job, done: Any) -> None:
            with contextlib.suppress(*existing):
                steps.write(job, done)

        with progress:
            failures = run(
                jobs,
                (read, lambda item: steps.work(item, plan), write),
                args.jobs,
                lambda job: progress.advance(pixels.get(job.source, 0)),
            )
    end([*unread, *failures])


def run(
    jobs: Iterable[Job],
    steps: tuple[Callable[[Job], Any], Callable[[Any], Any], Callable[[Job, Any], None]],
    threads: int,
    ended: Callable[[Job], None],
) -> list[str]:
    """Reads, processes and writes each job; returns a sentence for each job that failed.

    The steps are read(job), work(result of read) and write(job, result of work). Threads call the
    first and the last, the calling thread calls work, in order. `threads` is also the number of
    images that may wait before and after work. `ended` is called with every job at its end.
    """
    read, work, write = steps
    failures = []
    writing: deque[tuple[tuple[Job, Any], Future]] = deque()
    pool = ThreadPoolExecutor(threads)

    def failed(job: Job, error: Exception) -> None:
        failures.append(about(job.source, error))

    def worked() -> Iterator[tuple[Job, Any]]:
        for job, reading in _ahead(pool, read, jobs, threads, deque()):
            interrupts.end_if_asked()
            try:
                done = work(reading.result())
            except PER_FILE as error:
                failed(job, error)
                ended(job)
            else:
                yield job, done

    try:
        for (job, _), future in _ahead(pool, lambda it: write(*it), worked(), threads, writing):
            try:
                future.result()
            except PER_FILE as error:
                failed(job, error)
            ended(job)
    finally:
        # After an interrupt, files that are being written are finished, and the others are dropped.
        # Readers are not waited for, because one may never return.
        pool.shutdown(wait=False, cancel_futures=True)
        wait(future for _, future in writing if not future.cancelled())
    return failures


def end(failures: Iterable[str]) -> None:
    """Prints the failures, one line each, and exits with code 1 if there are any."""
    failures = list(failures)
    for sentence in failures:
        say(f"error: {sentence}")
    if failures:
        sys.exit(1)


def _ahead(
    pool: ThreadPoolExecutor,
    step: Callable[[Any], Any],
    items: Iterable[Any],
    count: int,
    waiting: deque[tuple[Any, Future]],
) -> Iterator[tuple[Any, Future]]:
    """Yields each item with its future, after threads have started on at most `count` more.

    `waiting` holds the items that have not been taken, and the one that was taken last.
    """
    for item in items:
        waiting.append((item, pool.submit(step, item)))
        if len(waiting) > count:
            yield waiting[0]
            waiting.popleft()
    while waiting:
        yield waiting[0]
        waiting.popleft()
