"""Published weights of LPIPS and Inception: fetched or local, held to their hash, converted."""

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_files
from file_server import serving

from fa_hific_jax.cli.main import main
from fa_hific_jax.convert import published_weights
from fa_hific_jax.convert.download import file_name
from fa_hific_jax.convert.published_weights import (
    SOURCES,
    convert_inception,
    convert_lpips,
    get_inception,
    get_lpips,
)
from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.lpips import expected_shapes, load_lpips
from fa_hific_jax.metrics import inception
from fa_hific_jax.metrics.inception import load_inception

NAMES = [file_name(url) for url in SOURCES["squeeze"]]


@functools.cache
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = expected_shapes("squeeze")
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def save_published(folder: Path) -> list[Path]:
    """The two published files of SqueezeNet, one in each format of PyTorch."""
    network = {name: array for name, array in arrays().items() if not name.startswith("lin")}
    network["classifier.1.weight"] = np.zeros((3, 2), np.float32)
    linear = {
        name.replace(".", ".model.1."): array
        for name, array in arrays().items()
        if name.startswith("lin")
    }
    return [
        torch_files.save(folder / NAMES[0], network),
        torch_files.save_legacy(folder / NAMES[1], linear),
    ]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The cache folder of this test; nothing is in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fa-hific"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A local server of the published files, in the place of those that are meant."""
    with serving(tmp_path / "published", monkeypatch) as found:
        sources = {
            f"{found.url}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
            for path in save_published(found.folder)
        }
        monkeypatch.setattr(published_weights, "SOURCES", {"squeeze": sources})
        yield found


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_every_array_is_taken_from_the_published_files(tmp_path):
    found = convert_lpips("squeeze", *save_published(tmp_path))
    assert list(found) == list(arrays())
    for name, array in arrays().items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_files_that_lack_arrays_are_named(tmp_path):
    network, linear = save_published(tmp_path)
    torch_files.save(linear, {"lin0.model.1.weight": arrays()["lin0.weight"]})
    with pytest.raises(UserError, match=f"{NAMES[0]} with .*{NAMES[1]}: not the LPIPS weights of"):
        convert_lpips("squeeze", network, linear)


def test_weights_are_downloaded_once_and_only_the_result_is_kept(server, cache, tmp_path):
    path = get_lpips("squeeze")
    assert path == cache / "lpips_squeeze.npz"
    np.testing.assert_array_equal(load_lpips(path).linear[6], arrays()["lin6.weight"].ravel())
    assert names(cache) == ["lpips_squeeze.npz"]
    assert get_lpips("squeeze") == path
    output = tmp_path / "new" / "weights.npz"
    assert get_lpips("squeeze", output) == output
    assert len(server.asked) == 2
    assert output.read_bytes() == path.read_bytes()
    assert names(output.parent) == ["weights.npz"]

    good = path.read_bytes()
    path.write_bytes(good[:-1000])  # What is damaged is made anew.
    assert get_lpips("squeeze") == path
    assert path.read_bytes() == good


def test_local_files_are_converted_and_left_if_they_are_the_published_ones(server, cache, tmp_path):
    path = get_lpips("squeeze", tmp_path / "weights.npz", server.folder)
    assert path == tmp_path / "weights.npz" and load_lpips(path).net == "squeeze"
    assert names(server.folder) == sorted(NAMES)
    with open(server.folder / NAMES[1], "ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match=r"squeeze.pth: has the SHA-256 \w{64} instead of \w{64},"):
        get_lpips("squeeze", folder=server.folder)
    (server.folder / NAMES[0]).unlink()
    with pytest.raises(UserError, match=f"{NAMES[0]}: no such file: download it from http://127"):
        get_lpips("squeeze", folder=server.folder)
    assert not cache.exists()


def test_without_network_the_files_to_bring_are_listed(server, cache):
    (server.folder / NAMES[0]).unlink()
    first, second = (f"{server.url}/{name}" for name in NAMES)
    advice = f"404 .*: download {first} and {second} into one folder .* --net squeeze --from FOLDER"
    with pytest.raises(UserError, match=advice):
        get_lpips("squeeze")


def test_an_output_that_cannot_be_written_is_named(server, cache, tmp_path):
    with pytest.raises(UserError, match="is a folder: name a file$"):
        get_lpips("squeeze", tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="file.*: cannot be written "):
        get_lpips("squeeze", tmp_path / "file" / "w.npz", server.folder)


# The whole network has 22 million weights; which layers it has, test_inception.py knows.
KERNELS = {"Conv2d_1a_3x3": (4, 3, 3, 3), "Mixed_5b.branch1x1": (5, 4, 1, 1)}
SHAPES = {f"{layer}.weight": shape for layer, shape in KERNELS.items()} | {
    f"{layer}.bias": shape[:1] for layer, shape in KERNELS.items()
}


@pytest.fixture
def state(monkeypatch) -> dict[str, Any]:
    """Two layers as pytorch-fid keeps them, every batch norm one that matters."""
    monkeypatch.setattr(inception, "expected_shapes", lambda: SHAPES)
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {"fc.bias": np.zeros(7, np.float32)}
    for layer, shape in KERNELS.items():
        arrays[f"{layer}.conv.weight"] = rng.standard_normal(shape, np.float32)
        for name in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"{layer}.bn.{name}"] = rng.uniform(0.5, 2, shape[0]).astype(np.float32)
        arrays[f"{layer}.bn.num_batches_tracked"] = torch_files.Tensor(np.zeros(1, np.int64), ())
    return arrays


def test_a_batch_norm_is_folded_into_its_convolution(tmp_path, state):
    found = convert_inception(torch_files.save(tmp_path / "a.pth", state))
    assert {name: array.shape for name, array in found.items()} == SHAPES
    assert all(array.dtype == np.float32 for array in found.values())
    patch = np.random.default_rng(1).standard_normal((3, 3, 3))
    layer = {name.removeprefix("Conv2d_1a_3x3."): array for name, array in state.items()}
    plain = np.einsum("oihw,ihw->o", layer["conv.weight"].astype(float), patch)
    spread = np.sqrt(layer["bn.running_var"].astype(float) + 0.001)
    expected = (plain - layer["bn.running_mean"]) / spread * layer["bn.weight"] + layer["bn.bias"]
    kernel, bias = (found[f"Conv2d_1a_3x3.{kind}"].astype(float) for kind in ("weight", "bias"))
    np.testing.assert_allclose(np.einsum("oihw,ihw->o", kernel, patch) + bias, expected, rtol=1e-6)


def test_the_commands_print_the_path_alone(state, server, cache, tmp_path, monkeypatch, capsys):
    main(["get-lpips", "--net", "squeeze", "--from", str(server.folder)])
    assert capsys.readouterr().out == f"{cache / 'lpips_squeeze.npz'}\n"
    (url,) = SOURCES["inception"]
    file = torch_files.save(tmp_path / file_name(url), state)
    source = {url: hashlib.sha256(file.read_bytes()).hexdigest()}
    monkeypatch.setattr(published_weights, "SOURCES", {"inception": source})
    main(["get-inception", "--from", str(tmp_path)])
    path = cache / "inception.npz"
    assert capsys.readouterr().out == f"{path}\n"
    assert set(load_inception(path).weights) == set(SHAPES)
    assert get_inception() == path  # from the cache, without a network


def test_a_state_that_lacks_arrays_is_named(tmp_path, state):
    del state["Mixed_5b.branch1x1.bn.running_var"]
    with pytest.raises(UserError, match=r"\(Mixed_5b.branch1x1.bn.running_var is missing\): down"):
        convert_inception(torch_files.save(tmp_path / "weights.pth", state))
