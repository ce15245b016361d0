"""Runs scripts of the repository in forks of one process that has loaded what they load slowly.

As a script: for each line of standard input, a JSON list of a script and its arguments, it prints a
JSON list of exit code, standard output and standard error.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cpu_devices import hasty

ROOT = Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def scripts() -> Iterator[Callable[..., subprocess.CompletedProcess]]:
    """A function that runs a script in the repository's folder, on one CPU device."""
    env = os.environ | hasty() | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    command = [sys.executable, __file__]
    with subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, text=True) as parent:

        def run(*arguments) -> subprocess.CompletedProcess:
            print(json.dumps(list(map(str, arguments))), file=parent.stdin, flush=True)
            return subprocess.CompletedProcess(arguments, *json.loads(parent.stdout.readline()))

        yield run
        parent.stdin.close()


def _fork(arguments: list[str]) -> tuple[int, str, str]:
    import runpy

    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        pid = os.fork()
        if not pid:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv, sys.path[0] = arguments, str(ROOT)
            runpy.run_path(arguments[0], run_name="__main__")
            sys.exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0), err.seek(0)
        return code, out.read(), err.read()


if __name__ == "__main__":
    import fa_hific_jax.evaluation.evaluate
    import fa_hific_jax.training.loop  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(_fork(json.loads(line))), flush=True)
