"""Classical codecs in processes of their own, which start without loading JAX."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from fa_hific_jax import writing
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import baselines
from fa_hific_jax.evaluation.rows import Image, Row, write_png

Begin = Callable[..., Callable[[], Row]]
"""Begins a call, given the function and its arguments; the result waits for the row."""


def code_baseline(
    codec: str, quality: int | None, target_bytes: int | None, row: Row, image: Image, out: Path
) -> Row:
    """Codes an image with a classical codec, and writes the decoded picture of the row.

    Without a quality, the file nearest in size to `target_bytes` is taken.
    """
    if quality is not None:
        coded = baselines.encode(image, codec, quality)
    elif target_bytes is None:
        raise UserError("the first model has no file of this image whose size could be matched")
    else:
        coded = baselines.encode_nearest(image, codec, target_bytes)
    write_png(out / row.file, coded.image, row.key)
    seconds = (coded.seconds_encode, coded.seconds_decode)
    return row.coded(len(coded.data), seconds, setting=coded.setting)


@contextmanager
def pool(jobs: int) -> Iterator[Begin]:
    """Yields what begins a call in one of `jobs` processes.

    With one job, it is a call in this process when its result is asked for.
    """
    if jobs == 1:
        yield partial
        return
    # Forking a process in which JAX has started its threads may deadlock.
    made = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _start)
    try:
        yield lambda *call: made.submit(*call).result
    except BrokenProcessPool as error:
        raise UserError(
            "a process of --jobs has died, perhaps for lack of memory: give fewer --jobs; "
            "what is finished is kept"
        ) from error
    finally:
        made.shutdown(cancel_futures=True)


def _start() -> None:
    """Leaves Ctrl-C to the parent, and ends this process when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
    writing.remove_unfinished()
    os._exit(1)
