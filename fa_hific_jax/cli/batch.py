"""Codes many files with one model: threads read ahead and write behind, failures do not stop it."""

import argparse
import contextlib
import functools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
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

    compress(image, plan=..., reserved=0, **options of Model.compress) returns the file, to which
    `reserved` bytes will be added, and the name of the model that was chosen from a family, else
    "". Raises a UserError if there is no such model, or if it lacks what the arguments ask for.
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

    def compress(image: Any, *, reserved: int = 0, plan: Any, **options: Any) -> tuple[bytes, str]:
        quality = args.quality
        if args.bpp is not None:
            quality = model.quality_for(image, args.bpp, reserved=reserved, **options)
        return model.compress(image, quality=quality, plan=plan, **options), ""

    return name, model, compress


def code(
    args: argparse.Namespace,
    jobs: Sequence[Job],
    unread: Sequence[str],
    steps_of: Callable[[argparse.Namespace, Callable[[str], None]], Steps],
) -> None:
    """Codes the jobs; exits with code 1 after naming those that failed, and `unread`.

    steps_of(args, say) loads the model; say(line) prints a line above the progress.
    """
    if not jobs:
        return end(unread)
    with files.open_streams(jobs) as opened:
        runtime.use_compile_cache()
        progress = Progress(len(jobs))
        steps = steps_of(args, progress.say)
        sizes = {}
        for job in jobs:  # A source whose size cannot be read fails when its turn comes.
            with contextlib.suppress(UserError, OSError), opened(job.source) as file:
                sizes[job.source] = steps.size(file)
        plan = steps.plan(list(sizes.values()))
        pixels = {source: height * width for source, (height, width) in sizes.items()}
        progress.pixels = sum(pixels.values())

        def read(job: Job) -> Any:
            with opened(job.source) as file:
                return steps.read(job, file)

        def write(job: Job, done: Any) -> None:
            try:
                steps.write(job, done)
            except TargetExists:  # Another process has written it meanwhile.
                if not args.skip_existing:
                    raise

        def ended(job: Job) -> None:
            progress.advance(pixels.get(job.source, 0))

        with progress:
            step = read, lambda item: steps.work(item, plan), write
            failures = run(jobs, step, args.jobs, ended)
    end([*unread, *failures])


def run(
    jobs: Iterable[Job],
    steps: tuple[Callable[[Job], Any], Callable[[Any], Any], Callable[[Job, Any], None]],
    threads: int,
    ended: Callable[[Job], None],
) -> list[str]:
    """Reads, processes and writes each job; returns a sentence for each job that failed.

    Threads call read(job) and write(job, result of work); the calling thread calls work(result of
    read), in order, and `ended` with every job at its end. `threads` is also the number of images
    that may wait before and after work.
    """
    read, work, write = steps
    pool, todo = ThreadPoolExecutor(threads), deque(jobs)
    reading: deque[tuple[Job, Future]] = deque()
    writing: deque[tuple[Job, Future]] = deque()
    failures = []

    def finish_oldest() -> None:
        job, future = writing[0]
        try:
            future.result()
        except PER_FILE as error:
            failures.append(about(job.source, error))
        writing.popleft()
        ended(job)

    try:
        while todo or reading:
            while todo and len(reading) <= threads:
                reading.append((todo[0], pool.submit(read, todo.popleft())))
            job, future = reading.popleft()
            interrupts.end_if_asked()
            try:
                done = work(future.result())
            except PER_FILE as error:
                failures.append(about(job.source, error))
                ended(job)
                continue
            writing.append((job, pool.submit(write, job, done)))
            if len(writing) > threads:
                finish_oldest()
        while writing:
            finish_oldest()
    finally:
        # After an interrupt, files that are being written are finished, and the others are dropped.
        # Readers are not waited for, because one may never return.
        pool.shutdown(wait=False, cancel_futures=True)
        wait(future for _, future in writing if not future.cancelled())
    return failures


def end(failures: Sequence[str]) -> None:
    """Prints the failures, one line each, and exits with code 1 if there are any."""
    for sentence in failures:
        say(f"error: {sentence}")
    if failures:
        sys.exit(1)
