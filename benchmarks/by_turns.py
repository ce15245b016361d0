"""Times functions of several frameworks by turns, each in a process of its own.

So other work on the machine affects all of them, but the threads of one framework, which spin for a
while after their work, do not slow down the next, and each has the memory settings that its users
have.
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from benchmarks.coder import cpu, versions
from fa_hific_jax.cpu import variables

Maker = Callable[..., tuple[Callable[[], Any], dict[str, Any]]]
"""Function that returns what is to be timed, and facts about it. It runs in the new process."""

COMMANDS = variables({})
"""Variables of the environment that the commands of `fa-hific` set for themselves."""


class Case(NamedTuple):
    """What runs in one process: a maker with its arguments, and variables of the environment."""

    make: Maker
    args: tuple = ()
    environment: Mapping[str, str] = {}


def measure(cases: Mapping[str, Case], repeats: int) -> dict[str, dict[str, Any]]:
    """Returns the facts of each case and the times of its function.

    `ms` is the least and the median wall-clock time, `processor_ms` the same in processor time of
    all threads. `memory_mb` is how much the process grew since before the maker was called.
    """
    spawn = multiprocessing.get_context("spawn")
    workers, rows = {}, {}
    for name, case in cases.items():
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_serve, args=(theirs, case.make, case.args), daemon=True)
        with mock.patch.dict(os.environ, case.environment):
            process.start()
        theirs.close()
        rows[name] = ours.recv()
        workers[name] = ours
    times = {name: [] for name in workers}
    for _ in range(repeats):
        for name, worker in workers.items():
            worker.send(True)
            times[name].append(worker.recv())
    for name, worker in workers.items():
        worker.send(False)
        *columns, memory = zip(*times[name], strict=True)
        for key, values in zip(("ms", "processor_ms"), columns, strict=True):
            least, median = min(values), statistics.median(values)
            rows[name][key] = {"least": round(least, 2), "median": round(median, 2)}
        rows[name]["memory_mb"] = round(max(memory))
    return rows


def conditions(packages: Sequence[str]) -> dict[str, Any]:
    """Returns the head of a report: processor, its cores, load of other programs, and versions."""
    return {
        "device": cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "load_of_others": round(os.getloadavg()[0], 1),
        "versions": versions(packages),
    }


def ratios(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Returns the times of one row over those of another."""
    return {
        key: {which: round(ours[key][which] / theirs[key][which], 2) for which in ours[key]}
        for key in ("ms", "processor_ms")
    }


def _serve(connection, make: Maker, args: tuple) -> None:
    before = _peak_mb()
    run, facts = make(*args)
    connection.send(facts)
    while connection.recv():
        run()  # Threads wake up, and caches fill.
        wall, processor = time.perf_counter(), time.process_time()
        run()
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        connection.send((1e3 * wall, 1e3 * processor, _peak_mb() - before))


def _peak_mb() -> float:
    """Returns the peak memory of this process; `resource` would include that of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
