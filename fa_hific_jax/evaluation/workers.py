"""Processes that code with classical codecs while this one runs the models and the metrics."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from fa_hific_jax.errors import UserError


class Workers:
    """`count` processes; with one, this process does the work itself, at once.

    What is submitted and what it returns is pickled. The functions must do the same wherever they
    run, so that results do not depend on `count`.
    """

    def __init__(self, count: int):
        # Forking a process in which JAX has started its threads may deadlock.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(count, context, _start) if count > 1 else None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        """The future result of a function of a module."""
        if self._pool is not None:
            return self._pool.submit(function, *arguments)
        return here(function, *arguments)


def here(function: Callable[..., Any], *arguments: Any) -> Future:
    """The result of a function that this process has called, its error included."""
    future = Future()
    try:
        future.set_result(function(*arguments))
    except Exception as error:
        future.set_exception(error)
    return future


def result(future: Future) -> Any:
    """What the function returned; raises what it raised, or a UserError where its process died."""
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a process of --jobs has died, perhaps for want of memory: give fewer --jobs, "
            "what is finished stays"
        ) from error


def _start() -> None:
    """Leaves Ctrl-C to the parent, and follows it when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
