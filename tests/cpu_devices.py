"""Processes with JAX on one or several CPU devices, compiling as fast as it can."""

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = os.path.join(tempfile.gettempdir(), f"fa-hific-jax-tests-{os.getuid()}")


def xla_flags(count: int) -> str:
    """What XLA_FLAGS must hold, before JAX is imported, for so many CPU devices."""
    flags = f"--xla_force_host_platform_device_count={count}"
    jax = tuple(map(int, importlib.metadata.version("jax").split(".")[:2]))
    if jax < (0, 11):
        # The newer emitters take three times as long to compile. XLA of jax 0.11 has only these,
        # and ends a process that names the flag.
        return f"{flags} --xla_cpu_use_fusion_emitters=false"
    if count == 1:
        return flags
    # Two devices on two cores waited for each other for ever where operations share threads.
    return f"{flags} --xla_cpu_multi_thread_eigen=false"


def hasty(devices: int = 1) -> dict[str, str]:
    """Environment variables of a process with CPU devices that compiles in haste, nothing twice."""
    return {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": xla_flags(devices),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": CACHE,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }


def python(*arguments, cwd=ROOT, timeout=300, **variables) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, which finds the repository and compiles in haste."""
    env = os.environ | hasty() | {"PYTHONPATH": str(ROOT)} | variables
    command, options = [sys.executable, *map(str, arguments)], {"cwd": cwd, "timeout": timeout}
    return subprocess.run(command, env=env, capture_output=True, text=True, **options)
