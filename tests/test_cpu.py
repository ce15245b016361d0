"""Settings of a process with which a CPU computes faster."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fa_hific_jax import cpu

ROOT = Path(__file__).resolve().parents[1]
FUSION = "--xla_backend_extra_options=xla_cpu_use_multi_output_fusion"
PAGES = "glibc.malloc.hugetlb=1"

# Two results of one input, which a CPU computes in one loop only with the option.
CODE = """
import sys
from fa_hific_jax import cpu
cpu.restart()
import jax, jax.numpy as jnp
x = jnp.ones((256, 256))
print(sys.argv[1:], jax.jit(lambda x, y: (x * y - x, x + y * y)).lower(x, x).compile().as_text())
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"XLA_FLAGS": FUSION, "GLIBC_TUNABLES": PAGES}),
        (
            {"XLA_FLAGS": "--a=1", "GLIBC_TUNABLES": "glibc.malloc.arena_max=2"},
            {
                "XLA_FLAGS": f"--a=1 {FUSION}",
                "GLIBC_TUNABLES": f"glibc.malloc.arena_max=2:{PAGES}",
            },
        ),
        (
            {"XLA_FLAGS": "--xla_backend_extra_options=b", "GLIBC_TUNABLES": PAGES[:-1] + "0"},
            {},
        ),
        ({"XLA_FLAGS": FUSION, "GLIBC_TUNABLES": PAGES}, {}),
    ],
)
def test_values_of_the_user_take_precedence(given, expected):
    assert cpu.variables(given) == expected


def run(*command) -> str:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    environment.pop("GLIBC_TUNABLES", None)
    command = [sys.executable, *map(str, command)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep the process as it is")
def test_the_command_line_starts_anew_and_fuses_what_reads_the_same_arrays(tmp_path):
    (tmp_path / "x.py").write_text(CODE)
    printed = run("-W", "ignore", tmp_path / "x.py", "a b", "-c")
    assert printed.startswith("['a b', '-c'] HloModule")
    assert "(f32[256,256]{1,0}, f32[256,256]{1,0}) fusion(" in printed


def test_a_program_that_runs_the_command_itself_goes_on(tmp_path):
    (tmp_path / "x.py").write_text(CODE)
    within = f"import runpy, sys; sys.argv = ['x.py']; runpy.run_path('{tmp_path}/x.py')"
    (tmp_path / "y.py").write_text(f"print('once'); {within}")
    printed = run(tmp_path / "y.py")
    assert printed.count("once") == 1
    assert "f32[256,256]{1,0}) fusion(" not in printed
