import collections
import functools
import hashlib
import http.server
import pickle
import re
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest

from fa_hific_jax.cli.main import main
from fa_hific_jax.convert import lpips_weights
from fa_hific_jax.convert.lpips_weights import SOURCES, PublishedFile, convert_lpips, get_lpips
from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.lpips import expected_shapes, load_lpips

NETS = ("alex", "squeeze", "vgg")


def state_dicts(net: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Those of the two published files, every array with a value of its own."""
    network, linear = {}, {}
    for i, (name, shape) in enumerate(expected_shapes(net).items()):
        values = np.full(shape, 0.01 * i, np.float32)
        if name.startswith("lin"):
            linear[name.replace(".", ".model.1.")] = values
        else:
            network[name] = values
    network["classifier.1.weight"] = np.zeros((3, 2), np.float32)
    return network, linear


class Tensor:
    """Pickled as PyTorch pickles a tensor over a storage of its own."""

    def __init__(self, key: str, array: np.ndarray):
        self.key, self.array = key, array

    def __reduce__(self):
        strides = tuple(step // self.array.itemsize for step in self.array.strides)
        rest = (0, self.array.shape, strides, False, collections.OrderedDict())
        return sys.modules["torch._utils"]._rebuild_tensor_v2, (Storage(self), *rest)


class Storage:
    def __init__(self, tensor: Tensor):
        self.tensor = tensor


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        kind = sys.modules["torch"].FloatStorage
        return ("storage", kind, obj.tensor.key, "cpu", obj.tensor.array.size, None)


@pytest.fixture
def save(monkeypatch):
    """Writes a state dict as `torch.save` did before PyTorch 1.6, without PyTorch."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})

    def _rebuild_tensor_v2():
        pass

    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"

    def to_file(path: Path, arrays: dict[str, np.ndarray]) -> None:
        tensors = [Tensor(str(i), array) for i, array in enumerate(arrays.values())]
        state = collections.OrderedDict(zip(arrays, tensors, strict=True))
        sizes = {"short": 2, "int": 4, "long": 4}
        system = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
        with monkeypatch.context() as context, open(path, "wb") as file:
            context.setitem(sys.modules, "torch", torch)
            context.setitem(sys.modules, "torch._utils", utils)
            for item in (0x1950A86A20F9469CFC6C, 1001, system):
                pickle.dump(item, file, 2)
            Pickler(file, 2).dump(state)
            pickle.dump([tensor.key for tensor in tensors], file, 2)
            for tensor in tensors:
                file.write(np.int64(tensor.array.size).tobytes() + tensor.array.tobytes())

    return to_file


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The cache folder of this test; nothing is in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fa-hific"


@pytest.fixture
def published(tmp_path, save, monkeypatch) -> Path:
    """A folder with the two files of SqueezeNet, which a local server offers instead of those
    that are meant."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "published"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        sources = []
        for source, arrays in zip(SOURCES["squeeze"], state_dicts("squeeze"), strict=True):
            save(folder / source.name, arrays)
            sha256 = hashlib.sha256((folder / source.name).read_bytes()).hexdigest()
            url = f"http://127.0.0.1:{server.server_port}/{source.name}"
            sources.append(PublishedFile(url, sha256))
        monkeypatch.setattr(lpips_weights, "SOURCES", {"squeeze": tuple(sources)})
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder
        server.shutdown()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def check_squeeze(path: Path) -> None:
    params = load_lpips(path)
    assert params.net == "squeeze"
    np.testing.assert_array_equal(params.linear[6], np.full(512, np.float32(0.01 * 56)))
    first = params.weights["features.3.squeeze.bias"]
    np.testing.assert_array_equal(first, np.full(16, np.float32(0.03)))


def test_sources_are_told_by_their_whole_hash():
    assert set(SOURCES) == set(NETS)
    for network, linear in SOURCES.values():
        assert network.sha256.startswith(network.name.removesuffix(".pth").rpartition("-")[2])
        assert re.search(r"/[0-9a-f]{40}/lpips/weights/v0\.1/\w+\.pth$", linear.url)
        for source in (network, linear):
            assert re.fullmatch("[0-9a-f]{64}", source.sha256)


@pytest.mark.parametrize("net", NETS)
def test_every_array_is_taken_from_the_published_files(net, tmp_path, save):
    paths = (tmp_path / "network.pth", tmp_path / "linear.pth")
    for path, arrays in zip(paths, state_dicts(net), strict=True):
        save(path, arrays)
    found = convert_lpips(net, *paths)
    assert list(found) == list(expected_shapes(net))
    for i, (name, shape) in enumerate(expected_shapes(net).items()):
        assert found[name].shape == shape and found[name].dtype == np.float32
        assert np.all(found[name] == np.float32(0.01 * i))


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_pytorch_itself_are_converted(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    paths = (tmp_path / "network.pth", tmp_path / "linear.pth")
    network, linear = state_dicts("squeeze")
    for path, arrays in zip(paths, (network, linear), strict=True):
        parameters = {k: torch.nn.Parameter(torch.from_numpy(v)) for k, v in arrays.items()}
        torch.save(collections.OrderedDict(parameters), path, _use_new_zipfile_serialization=zipped)
    found = convert_lpips("squeeze", *paths)
    for name, array in found.items():
        source = linear[name.replace(".", ".model.1.")] if name[:3] == "lin" else network[name]
        np.testing.assert_array_equal(array, source)


def test_files_that_lack_arrays_are_named(tmp_path, save):
    network, linear = state_dicts("squeeze")
    save(tmp_path / "network.pth", network)
    save(tmp_path / "linear.pth", {"lin0.model.1.weight": linear["lin0.model.1.weight"]})
    with pytest.raises(
        UserError, match="network.pth with .*linear.pth: not the LPIPS weights of Sq"
    ):
        convert_lpips("squeeze", tmp_path / "network.pth", tmp_path / "linear.pth")


def test_weights_are_downloaded_once_and_only_the_result_is_kept(published, cache, tmp_path):
    path = get_lpips("squeeze")
    assert path == cache / "lpips_squeeze.npz"
    check_squeeze(path)
    assert names(cache) == ["lpips_squeeze.npz"]
    for file in published.iterdir():
        file.unlink()
    assert get_lpips("squeeze") == path
    output = tmp_path / "new" / "weights.npz"
    assert get_lpips("squeeze", output) == output
    assert output.read_bytes() == path.read_bytes()
    assert names(output.parent) == ["weights.npz"]


def test_a_damaged_file_in_the_cache_is_made_anew(published, cache):
    path = get_lpips("squeeze")
    good = path.read_bytes()
    path.write_bytes(good[:-1000])
    assert get_lpips("squeeze") == path
    assert path.read_bytes() == good


def test_local_files_are_converted_and_left(published, cache, tmp_path):
    before = names(published)
    path = get_lpips("squeeze", tmp_path / "weights.npz", published)
    assert path == tmp_path / "weights.npz"
    check_squeeze(path)
    assert names(published) == before
    assert not cache.exists()
    assert get_lpips("squeeze", folder=published) == cache / "lpips_squeeze.npz"


def test_local_files_must_be_there_and_the_published_ones(published, cache):
    network, linear = (published / source.name for source in SOURCES["squeeze"])
    linear.write_bytes(linear.read_bytes() + b"more")
    with pytest.raises(
        UserError, match=r"squeeze.pth: has the SHA-256 \w{64} instead of \w{64}, so"
    ):
        get_lpips("squeeze", folder=published)
    network.unlink()
    with pytest.raises(
        UserError, match="a52dc0.pth: no such file: download it from http://127.0.0"
    ):
        get_lpips("squeeze", folder=published)
    assert not cache.exists()


def test_without_network_the_files_to_bring_are_listed(published, cache):
    (published / SOURCES["squeeze"][0].name).unlink()
    first, second = (source.url for source in lpips_weights.SOURCES["squeeze"])
    with pytest.raises(UserError) as raised:
        get_lpips("squeeze")
    assert str(raised.value) == (
        f"{first}: the server answers 404 File not found: download {first} and {second} into one "
        "folder on a machine that has a network, then run `fa-hific get-lpips --net squeeze "
        "--from FOLDER` here"
    )


def test_a_wrong_download_is_no_reason_to_bring_files(published, cache):
    (published / "squeeze.pth").write_bytes(b"a web page")
    with pytest.raises(UserError, match="squeeze.pth.part was removed, run the command again$"):
        get_lpips("squeeze")


def test_an_output_that_cannot_be_written_is_named(published, cache, tmp_path):
    with pytest.raises(UserError, match="is a folder: name a file$"):
        get_lpips("squeeze", tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="file/w.npz: cannot be written: "):
        get_lpips("squeeze", tmp_path / "file" / "w.npz")


def test_the_command_prints_the_path_alone(published, cache, capsys):
    main(["get-lpips", "--net", "squeeze", "--from", str(published)])
    assert capsys.readouterr().out == f"{cache / 'lpips_squeeze.npz'}\n"


def test_a_mistake_ends_the_command_with_one_sentence(published, cache, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["get-lpips", "--net", "squeeze", "--from", "no/such"])
    said = capsys.readouterr().err
    assert said.startswith("error: no/such/squeezenet1_1-b8a52dc0.pth: no such file: download it")
    assert said.count("\n") == 1
    with pytest.raises(SystemExit, match="2"):
        main(["get-lpips", "--net", "resnet"])
    assert "invalid choice: 'resnet'" in capsys.readouterr().err
