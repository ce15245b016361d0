"""Codes many files with one model: threads read ahead and write behind, failures do not stop it."""

import argparse
import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any

from fa_hific_jax import interrupts
from fa_hific_jax.cli import files, runtime, values
from fa_hific_jax.cli.files import Job
from fa_hific_jax.cli.progress import Progress
from fa_hific_jax.codec import shipped
from fa_hific_jax.errors import UserError, one_line, reason, say, shown

# Errors that may concern a single file; JAX raises a RuntimeError when memory runs out.
PER_FILE = (UserError, OSError, MemoryError, RuntimeError)


def add_arguments(parser: argparse.ArgumentParser, inputs: str, output: str) -> None:
    """Declares the arguments that compress and decompress share.

    `inputs` and `output` are the help texts of those two arguments.
    """
    parser.add_argument("inputs", nargs="+", type=files.source_name, metavar="INPUT", help=inputs)
    parser.add_argument("-o", "--output", type=files.target_name, metavar="OUT", help=output)
    parser.add_argument("--model", type=files.path_name, metavar="FOLDER", help=runtime.MODEL_HELP)
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--force", action="store_true", help="overwrite existing files")
    existing.add_argument(
        "--skip-existing",
        action="store_true",
        help="keep existing files and write only the others, for example to finish a batch that "
        "was stopped",
    )
    parser.add_argument(
        "--jobs",
        type=values.threads,
        default=2,
        metavar="N",
        help="number of threads that read and write images while the network runs (default: 2); "
        "up to N images wait in memory before the network and N after it",
    )
    parser.add_argument(
        "--mode",
        choices=("auto", "exact", "blend"),
        default="auto",
        help="how to process large images; exact: in tiles, which need less memory and give the "
        "pixels of the whole image; blend: like exact, but decompress is faster and its pixels "
        "differ slightly; auto (default): whole or in exact tiles, depending on the size",
    )


def add_rate_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares --quality and --bpp."""
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument(
        "--quality",
        type=values.share,
        metavar="Q",
        help="quality from 0, the smallest file, to 1, the best image (default: 0.5)",
    )
    rate.add_argument(
        "--bpp",
        type=values.positive,
        metavar="RATE",
        help="use the highest quality whose file has at most RATE bits per pixel, chosen for each "
        "image; if there is none, write the smallest file; takes about twice the time",
    )


def model_at_rate(args: argparse.Namespace) -> tuple[str, Any]:
    """Returns name and model for --quality and --bpp; a `several.ByRate` for a family's name.

    Raises:
      UserError: there is no such model, or it does not have what the arguments ask for.
    """
    from fa_hific_jax.codec.model_folder import load_model

    name = shipped.model_to_use(args.model)
    if members := shipped.members_of(name):
        from fa_hific_jax.codec.several import ByRate

        if args.bpp is None:
            raise UserError(
                f"{name}: has one model for each rate: give --bpp, or one of them as --model: "
                f"{', '.join(member.name for member in members)}"
            )
        return name, ByRate(members)
    model = load_model(name)
    if (args.quality, args.bpp) != (None, None) and not model.config.qualities:
        raise UserError(
            f"{name}: this model has a single rate: omit --quality and --bpp, or use a model that "
            "was trained with model.qualities"
        )
    return name, model


def compressed(
    model: Any, image: Any, args: argparse.Namespace, *, reserved: int = 0, **options: Any
) -> tuple[bytes, str]:
    """Returns the file of an image at --quality or --bpp, and the member of a family that made it.

    The name is "" for a single model. `reserved` bytes will be added to the file; `options` are
    those of `Model.compress`.
    """
    from fa_hific_jax.codec.several import ByRate

    if isinstance(model, ByRate):
        return model.compress(image, args.bpp, reserved=reserved, **options)
    quality = args.quality
    if args.bpp is not None:
        rest = {name: value for name, value in options.items() if name != "plan"}
        quality = model.quality_for(image, args.bpp, reserved=reserved, **rest)
    return model.compress(image, quality=quality, **options), ""


def plan_jobs(
    args: argparse.Namespace, suffixes: frozenset[str], target_suffix: str
) -> tuple[list[Job], list[str]]:
    """Returns the files to read and write, and a sentence for each input that cannot be used.

    Folders and globs in `args.inputs` are searched for `suffixes`.

    Raises:
      UserError: an input leads to nothing, or an output would destroy a file: see `cli/files.py`.
    """
    found, unread = files.find(args.inputs, suffixes)
    every = files.pair(args.inputs, found, args.output, target_suffix)
    jobs = files.check_targets(every, args.force, args.skip_existing)
    return jobs, [*unread, *files.not_whole(every, jobs)]


def code(
    args: argparse.Namespace,
    jobs: list[Job],
    unread: list[str],
    open_model: Callable[[argparse.Namespace], tuple[str, Any]],
    steps_of: Callable[..., Any],
) -> None:
    """Codes the jobs with one model; exits with code 1 after naming those that failed.

    Args:
      args: the arguments of the command, with those of `add_arguments`.
      jobs: the files to read and write.
      unread: a sentence for each input that cannot be used.
      open_model: open_model(args) returns name and model.
      steps_of: steps_of(args, name of the model, model, say) returns the functions size(open file),
        which gives height and width, read(job, open file), work(result of read, plan of the model)
        and write(job, result of work). say(line) prints a line above the progress.
    """
    if not jobs:
        end(unread)
        return
    with runtime.orderly(), files.open_streams(jobs) as contents:
        runtime.use_compile_cache()
        name, model = open_model(args)
        size, read, work, write = steps_of(args, name, model, lambda line: progress.say(line))
        sizes = {}
        for job in jobs:  # A source whose size cannot be read fails when its turn comes.
            with (
                contextlib.suppress(UserError, OSError),
                files.opened(job.source, contents) as file,
            ):
                sizes[job.source] = size(file)
        plan = model.plan(list(sizes.values()))
        pixels = {path: height * width for path, (height, width) in sizes.items()}

        def read_opened(job):
            with files.opened(job.source, contents) as file:
                return read(job, file)

        def write_missing(job, done):
            with files.leaving_existing(args.skip_existing):
                write(job, done)

        steps = read_opened, lambda item: work(item, plan), write_missing
        with Progress(len(jobs), sum(pixels.values())) as progress:
            failures = run(jobs, pixels, steps, args.jobs, progress)
    end([*unread, *failures])


def run(
    jobs: list[Job],
    pixels: dict[Path, int],
    steps: tuple[Callable[[Job], Any], Callable[[Any], Any], Callable[[Job, Any], None]],
    threads: int,
    progress: Progress,
) -> list[str]:
    """Reads, processes and writes each job; returns a sentence for each job that failed.

    Args:
      jobs: the files, in the order in which they are processed.
      pixels: number of pixels of each source whose size is known, for the progress.
      steps: read(job), work(result of read) and write(job, result of work). Threads call read and
        write; the calling thread calls work, in order.
      threads: number of threads, and of images that may wait before and after work.
      progress: advances with every job that ended, successfully or not.
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
    pool: ThreadPoolExecutor, read: Callable[[Job], Any], jobs: list[Job], count: int
) -> Iterator[tuple[Job, Future]]:
    """Yields each job with its reading, which threads start at most `count` jobs ahead."""
    rest = iter(jobs)
    reading = deque((job, pool.submit(read, job)) for job in islice(rest, count))
    while reading:
        this = reading.popleft()
        reading.extend((job, pool.submit(read, job)) for job in islice(rest, 1))
        yield this


def sentence(path: Path, error: BaseException) -> str:
    """Returns one line that begins with the name of the file and says what went wrong with it."""
    name, text = shown(path), reason(error)
    if isinstance(error, OSError) and error.strerror:
        other = error.filename not in (None, str(path))
        text = error.strerror + (f" ({shown(error.filename)})" if other else "")
    elif isinstance(error, UserError):
        text = str(error).removeprefix(f"{path}: ")
    elif isinstance(error, RuntimeError):
        text = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return f"{name}: {one_line(text).removeprefix(f'{name}: ')}"
