"""The published weights of FID's Inception, as our .npz.

Downloads and files that are not the published ones are those of test_get_lpips.py.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_files import Tensor, save

from fa_hific_jax.cli.main import main
from fa_hific_jax.convert import published_weights
from fa_hific_jax.convert.published_weights import SOURCES, convert_inception, get_inception
from fa_hific_jax.errors import UserError
from fa_hific_jax.metrics import inception
from fa_hific_jax.metrics.inception import load_inception

# The whole network has 22 million weights; which layers it has, test_inception.py knows.
KERNELS = {"Conv2d_1a_3x3": (4, 3, 3, 3), "Mixed_5b.branch1x1": (5, 4, 1, 1)}
SHAPES = {f"{layer}.weight": shape for layer, shape in KERNELS.items()} | {
    f"{layer}.bias": shape[:1] for layer, shape in KERNELS.items()
}


@pytest.fixture(autouse=True)
def two_layers(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(inception, "expected_shapes", lambda: SHAPES)


@pytest.fixture
def state() -> dict[str, Any]:
    """As pytorch-fid keeps it, every batch norm one that matters."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {"fc.bias": np.zeros(7, np.float32)}
    for layer, shape in KERNELS.items():
        arrays[f"{layer}.conv.weight"] = rng.standard_normal(shape, np.float32)
        for name in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"{layer}.bn.{name}"] = rng.uniform(0.5, 2, shape[0]).astype(np.float32)
        arrays[f"{layer}.bn.num_batches_tracked"] = Tensor(np.zeros(1, np.int64), shape=())
    return arrays


@pytest.fixture
def published(tmp_path, state, monkeypatch) -> Path:
    """The published file."""
    (source,) = SOURCES["inception"]
    file = save(tmp_path / source.name, state)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    changed = {"inception": (source._replace(sha256=sha256),)}
    monkeypatch.setattr(published_weights, "SOURCES", changed)
    return file


def test_a_batch_norm_is_folded_into_its_convolution(published, state):
    found = convert_inception(published)
    assert {name: array.shape for name, array in found.items()} == SHAPES
    assert all(array.dtype == np.float32 for array in found.values())
    patch = np.random.default_rng(1).standard_normal((3, 3, 3))
    layer = {name.removeprefix("Conv2d_1a_3x3."): array for name, array in state.items()}
    plain = np.einsum("oihw,ihw->o", layer["conv.weight"].astype(float), patch)
    spread = np.sqrt(layer["bn.running_var"].astype(float) + 0.001)
    expected = (plain - layer["bn.running_mean"]) / spread * layer["bn.weight"] + layer["bn.bias"]
    kernel, bias = (found[f"Conv2d_1a_3x3.{kind}"].astype(float) for kind in ("weight", "bias"))
    np.testing.assert_allclose(np.einsum("oihw,ihw->o", kernel, patch) + bias, expected, rtol=1e-6)


def test_the_command_converts_a_local_file_and_prints_the_path_alone(published, tmp_path, capsys):
    main(["get-inception", "--from", str(published.parent)])
    path = tmp_path / "cache" / "fa-hific" / "inception.npz"
    assert capsys.readouterr().out == f"{path}\n"
    assert set(load_inception(path).weights) == set(SHAPES)
    assert get_inception() == path  # from the cache, without a network
    assert get_inception(tmp_path / "own.npz").read_bytes() == path.read_bytes()


def test_a_state_that_lacks_arrays_is_named(tmp_path, state):
    del state["Mixed_5b.branch1x1.bn.running_var"]
    with pytest.raises(UserError, match=r"\(Mixed_5b.branch1x1.bn.running_var is missing\): down"):
        convert_inception(save(tmp_path / "weights.pth", state))
