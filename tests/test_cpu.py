"""Settings of a process that trains on a CPU."""

import os
import subprocess
import sys

import pytest

# Two results of one input, which a CPU computes in one loop only with the option.
CODE = """
from fa_hific_jax import cpu
cpu.prepare()
import os, jax, jax.numpy as jnp
print(os.environ["XLA_FLAGS"])
print(jax.jit(lambda x, y: (x * y - x, x + y * y)).lower(*2 * [jnp.ones((256, 256))]).compile().as_text())
"""


def run(flags: str) -> tuple[str, str]:
    """Returns XLA_FLAGS and a compiled program of a process that is prepared."""
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found, _, program = done.stdout.partition("\n")
    return found, program


@pytest.mark.parametrize("given", ["", "--xla_cpu_enable_fast_math=false"])
def test_what_reads_the_same_arrays_is_fused(given):
    flags, program = run(given)
    assert flags == f"{given} --xla_backend_extra_options=xla_cpu_use_multi_output_fusion".strip()
    assert "(f32[256,256]{1,0}, f32[256,256]{1,0}) fusion(" in program


def test_the_options_of_the_user_take_precedence():
    given = "--xla_backend_extra_options=xla_cpu_disable_loop_unrolling"
    flags, program = run(given)
    assert flags == given
    assert "f32[256,256]{1,0}) fusion(" not in program
