"""Settings of a process with which a CPU computes faster."""

import sys

import pytest
from cpu_devices import python

from fa_hific_jax import cpu

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
FUSED = "(f32[256,256]{1,0}, f32[256,256]{1,0}) fusion("


@pytest.mark.parametrize(
    ("flags", "tunables", "expected"),
    [
        ("", "", (FUSION, PAGES)),
        ("--a=1", "b=2", (f"--a=1 {FUSION}", f"b=2:{PAGES}")),
        ("--xla_backend_extra_options=b", PAGES[:-1] + "0", (None, None)),
    ],
)
def test_values_of_the_user_take_precedence(flags, tunables, expected):
    found = cpu.variables({"XLA_FLAGS": flags, "GLIBC_TUNABLES": tunables})
    assert (found.get("XLA_FLAGS"), found.get("GLIBC_TUNABLES")) == expected


def run(*command) -> str:
    unset = {"XLA_FLAGS": "", "GLIBC_TUNABLES": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    return python(*command, **unset).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep the process as it is")
def test_the_command_line_starts_anew_and_a_program_that_runs_the_command_itself_goes_on(tmp_path):
    (tmp_path / "x.py").write_text(CODE)
    printed = run("-W", "ignore", tmp_path / "x.py", "a b", "-c")
    assert printed.startswith("['a b', '-c'] HloModule") and FUSED in printed
    within = f"import runpy, sys; sys.argv = ['x.py']; runpy.run_path('{tmp_path}/x.py')"
    (tmp_path / "y.py").write_text(f"print('once'); {within}")
    printed = run(tmp_path / "y.py")
    assert printed.count("once") == 1 and FUSED not in printed
