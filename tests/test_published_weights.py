"""Downloads, resumed and held to their hash, and the weights of LPIPS and Inception from them."""

import fcntl
import functools
import hashlib
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_files
from file_server import serving

from fa_hific_jax.cache import cache_folder
from fa_hific_jax.cli.main import main
from fa_hific_jax.convert import download as downloads
from fa_hific_jax.convert import published_weights
from fa_hific_jax.convert.download import check_sha256, file_name
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


CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
download = functools.partial(downloads.download, offline="bring it")


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
    """A local server of CONTENT and of the published files, in the place of the real ones."""
    with serving(tmp_path / "published", monkeypatch) as found:
        sources = {
            f"{found.url}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
            for path in save_published(found.folder)
        }
        monkeypatch.setattr(published_weights, "SOURCES", {"squeeze": sources})
        (found.folder / "file.pth").write_bytes(CONTENT)
        yield found


@pytest.fixture
def url(server) -> str:
    return f"{server.url}/file.pth"


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "cache" / "file.pth"


@pytest.fixture
def part(path) -> Path:
    path.parent.mkdir()
    return path.with_name("file.pth.part")


def only_file(path: Path) -> bytes:
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return path.read_bytes()


def test_a_file_is_downloaded_once_and_again_when_it_is_damaged(server, url, path, capsys):
    download(url, path, SHA256)
    assert only_file(path) == CONTENT
    assert re.match(
        r"file.pth  0.30 of 0.30 MB at [\d.]+ MB/s, 0 s left *\n", capsys.readouterr().err
    )
    download(url, path, SHA256)
    assert server.asked == [None]
    path.write_bytes(CONTENT[:-1])
    download(url, path, SHA256)
    assert only_file(path) == CONTENT


def test_two_processes_do_not_append_to_the_same_part(server, url, path, part):
    with open(part, "wb") as file:
        file.write(CONTENT[:1000])
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is downloading it: run again"):
            download(url, path, SHA256)
    assert server.asked == [] and only_file(part) == CONTENT[:1000]
    download(url, path, SHA256)
    assert only_file(path) == CONTENT


def test_a_broken_connection_is_told_and_resumed(server, url, path, part):
    server.sends_at_most = 123_456
    sentence = f"broke (after 0.12 of 0.30 MB): {part} is kept, run the command again to resume"
    with pytest.raises(UserError, match=re.escape(sentence)):
        download(url, path, SHA256)
    assert only_file(part) == CONTENT[:123_456]
    server.sends_at_most = len(CONTENT)
    download(url, path, SHA256)
    assert server.asked == [None, "bytes=123456-"]
    assert only_file(path) == CONTENT


def test_a_silent_server_counts_as_a_broken_connection(server, url, path, part):
    server.gate.clear()
    server.sends_at_most = 200_000
    with pytest.raises(UserError, match=r"the connection broke \(timed out\): .* to resume"):
        download(url, path, SHA256, timeout=0.2)
    assert CONTENT.startswith(part.read_bytes())


@pytest.mark.parametrize(
    ("knows_ranges", "tells_length", "before"),
    [(False, True, bytes(32)), (False, False, bytes(32)), (True, True, CONTENT)],
    ids=["no ranges", "no ranges, no length", "nothing is lacking"],
)
def test_a_part_becomes_the_file(server, url, path, part, knows_ranges, tells_length, before):
    server.knows_ranges, server.tells_length = knows_ranges, tells_length
    part.write_bytes(before)
    download(url, path, SHA256)
    assert server.asked == [f"bytes={len(before)}-"]
    assert only_file(path) == CONTENT


@pytest.mark.parametrize("before", [b"", b"of another file", bytes(len(CONTENT) + 5)])
def test_a_wrong_hash_removes_what_came(url, path, part, before):
    part.write_bytes(before)
    expected = SHA256 if before else "0" * 64
    with pytest.raises(UserError, match=f"was removed again, because {part}: has the SHA-256"):
        download(url, path, expected)
    assert list(path.parent.iterdir()) == []


def test_a_server_that_does_not_give_the_file_is_named(url, path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/file.pth"
        for address, sentence in {
            f"{url}h": "/file.pthh: the server answers 404 Not Found: bring it$",
            closed: r"file.pth: cannot be reached \(.*refused\): bring it$",
        }.items():
            with pytest.raises(UserError, match=sentence):
                download(address, path, SHA256)
            assert list(path.parent.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(url, path):
    path.parent.write_bytes(b"")
    sentence = r"cache.*: cannot be written \((File exists|Not a directory)\): free space, or name"
    with pytest.raises(UserError, match=sentence):
        download(url, path, SHA256)


def test_local_files_are_held_to_their_hash(tmp_path):
    path = tmp_path / "file.pth"
    with pytest.raises(UserError, match="file.pth: cannot be read: No such file or directory"):
        check_sha256(path, SHA256)
    path.write_bytes(CONTENT)
    assert check_sha256(path, SHA256) == check_sha256(path, None) == SHA256
    with pytest.raises(UserError, match=f"file.pth: has the SHA-256 {SHA256} instead of 00"):
        check_sha256(path, "00")


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "home/.cache"),
        ("linux", {"XDG_CACHE_HOME": "{}/xdg"}, "xdg"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "home/.cache"),
        ("darwin", {}, "home/Library/Caches"),
        ("win32", {"LOCALAPPDATA": "{}/local"}, "local"),
    ],
)
def test_downloads_are_kept_where_the_system_keeps_caches(
    monkeypatch, tmp_path, platform, variables, expected
):
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    assert cache_folder() == tmp_path / expected / "fa-hific"


def test_without_home_the_variable_to_set_is_named(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(UserError, match="no home folder for downloads: set XDG_CACHE_HOME"):
        cache_folder()


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
    assert set(names(server.folder)) > set(NAMES)
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
