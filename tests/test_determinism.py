"""The same bytes and symbols whatever computes them: threads, XLA's liberties, jit, precision."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from coding_model import coding_config, coding_model, coding_params, image_of

from fa_hific_jax.codec import bitstream, coding
from fa_hific_jax.codec.model import Model, from_params
from fa_hific_jax.codec.model_folder import save_model

TESTS = Path(__file__).parent

FAST_MATH = (
    "--xla_cpu_enable_fast_math=true --xla_cpu_fast_math_honor_nans=false "
    "--xla_cpu_fast_math_honor_infs=false --xla_cpu_fast_math_honor_division=false"
)
ENVIRONMENTS = {
    "one thread, fast math": {"XLA_FLAGS": FAST_MATH, "OPENBLAS_NUM_THREADS": "1", "CPUS": "1"},
    "no wide vectors": {"XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2", "OPENBLAS_CORETYPE": "Nehalem"},
}
# JAX has no variable for the number of its threads: it takes one for each CPU it may use.
RUN = """
import json, os, sys
if os.environ.get("CPUS") == "1" and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from fa_hific_jax.codec.model_folder import load_model
from test_determinism import coded
print(json.dumps(coded(load_model(sys.argv[1]))))
"""


def coded(model: Model) -> dict[str, list[str]]:
    """The files of two images in hexadecimal digits, and hashes of the latents they decode to."""
    files = [model.compress(image_of(*size)) for size in ((40, 70), (64, 130))]
    y_hats = [coding.decode(model.entropy, bitstream.unpack(data)) for data in files]
    hashes = [hashlib.sha256(np.ascontiguousarray(y, "<f4").tobytes()) for y in y_hats]
    return {"files": [f.hex() for f in files], "latents": [each.hexdigest() for each in hashes]}


@pytest.fixture(scope="module")
def here():
    """What this process makes of the images."""
    return coded(coding_model())


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_other_environments_write_the_same_bytes_and_read_the_same_latents(name, here, tmp_path):
    model = save_model(coding_model(), tmp_path / "model")
    paths = f"{TESTS.parent}{os.pathsep}{TESTS}"
    environment = os.environ | ENVIRONMENTS[name] | {"PYTHONPATH": paths}
    command = [sys.executable, "-c", RUN, str(model)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == here


def test_without_jit_the_bytes_are_the_same(here):
    with jax.disable_jit():
        assert coding_model().compress(image_of(40, 70)).hex() == here["files"][0]


def test_a_network_in_bfloat16_writes_the_same_bytes_and_reads_the_same_latents(here):
    config = dataclasses.replace(coding_config(), dtype="bfloat16")
    model = from_params(config, coding_params())
    data = bytes.fromhex(here["files"][0])
    assert model.compress(image_of(40, 70)) == data
    # `decompress` has compared the symbols with their checksum; the pixels are near.
    difference = model.decompress(data).astype(int) - coding_model().decompress(data)
    assert np.mean(np.abs(difference)) < 8


def test_the_callers_settings_of_jax_change_nothing(here, x64):
    with jax.default_matmul_precision("bfloat16"):
        assert coding_model().compress(image_of(40, 70)).hex() == here["files"][0]
