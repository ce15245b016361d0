"""Settings of the whole suite: two CPU devices, strict promotion, where reference data lies."""

import os
from pathlib import Path

from cpu_devices import CACHE, xla_flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags(2)}"

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Most of the suite's time is compilation: compile less thoroughly, and nothing twice.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

# A folder with kodak/, train/ and lpips/, beside a folder golden/ of reference numbers: neither is
# part of the repository, and what needs them skips without.
DATA = Path(
    os.environ.get("FA_HIFIC_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
)


@pytest.fixture
def x64():
    """Runs the test in double precision."""
    enable = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    with enable(True):
        yield


@pytest.fixture(scope="module")
def standard_promotion():
    """Standard dtype promotion for a module: Optax raises a float to an integer power."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def golden():
    """name -> dict of reference arrays; skips where the reference folder is absent."""

    def load(name: str) -> dict[str, np.ndarray]:
        path = DATA.parent / "golden" / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"no reference numbers at {path}: set FA_HIFIC_DATA")
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files if key != "meta_json"}

    return load


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of photographs and LPIPS weights; skips where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"no data at {DATA}: set FA_HIFIC_DATA")
    return DATA


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """Frees the compiled programs of a module, which the next one has no use for."""
    yield
    jax.clear_caches()
