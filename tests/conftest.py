"""Settings of the whole suite: two CPU devices, strict promotion, where reference data lies."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
)

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# A folder with data/ and golden/: reference numbers and images that are not part of the repository.
SHARED = Path(
    os.environ.get("FA_HIFIC_SHARED") or Path(__file__).resolve().parents[2] / "shared"
)


@pytest.fixture
def x64():
    """Runs the test in double precision."""
    enable = getattr(jax, "enable_x64", None) or jax.experimental.enable_x64
    with enable(True):
        yield


def golden(name: str) -> dict[str, np.ndarray]:
    """Arrays of a reference file, or a skipped test where the reference folder is absent."""
    path = SHARED / "golden" / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"no reference numbers at {path}: set FA_HIFIC_SHARED")
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files if key != "meta_json"}
