"""Models of other projects: fetched, checked, converted, used under their names, refused if bad."""

import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import neural_compression_state
import numpy as np
import pytest
import pytorch_state
import reference_weights
import torch_files
from coding_model import image_of
from command_line import run
from file_server import serving
from neural_compression_state import small_state
from PIL import Image
from pytorch_state import tiny_checkpoint, tiny_state
from tiny_settings import tiny_config

import fa_hific_jax.pillow  # noqa: F401  (registers the format)
from fa_hific_jax import load_model, writing
from fa_hific_jax.cli import eval as eval_command
from fa_hific_jax.codec import bitstream, catalog, shipped
from fa_hific_jax.codec.model_folder import load_parameters
from fa_hific_jax.codec.several import ByRate
from fa_hific_jax.convert.download import file_name
from fa_hific_jax.convert.torch_checkpoint import import_checkpoint
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import points
from fa_hific_jax.settings import from_mapping
from fa_hific_jax.training import warm_start

ROOT = Path(__file__).resolve().parents[1]
NAME, FILE = "hific-mi", "hific_med.pt"
BOTH = (NAME, "msillm-0.14")
OF_BOTH_PROJECTS = pytest.mark.parametrize("name", BOTH)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The folder of fetched models of this test, in which nothing is; no model is chosen."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(shipped.MODEL_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "fa-hific" / "models"


@pytest.fixture
def server(cache, tmp_path, monkeypatch):
    """A local server with an empty folder, in the place of all addresses of the catalog."""
    with serving(tmp_path / "published", monkeypatch) as found:
        local = (m._replace(url=f"{found.url}/{file_name(m.url)}") for m in catalog.PUBLISHED)
        monkeypatch.setattr(catalog, "PUBLISHED", tuple(local))
        yield found


def small_checkpoint(path: Path) -> Path:
    return torch_files.save(path, small_state())


def checkpoint(name: str, folder: Path) -> Path:
    """The published file of a model, but with few channels."""
    make = tiny_checkpoint if name.startswith("hific") else small_checkpoint
    return make(folder / file_name(catalog.find(name).url))


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    """A cache with a model of each project, and the files that they were made of."""
    folder = tmp_path_factory.mktemp("converted")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(folder))
        for name in BOTH:
            assert run("get-model", name, "--from", checkpoint(name, folder)) == 0
    return folder


@pytest.fixture
def fetched(converted, cache) -> Path:
    """The folder of fetched models with those of both projects."""
    shutil.copytree(converted / "fa-hific" / "models", cache)
    return cache


def in_cache(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


def refused(capsys, *arguments) -> str:
    """The one sentence with which the command ends."""
    capsys.readouterr()
    assert run(*arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    (said,) = (line for line in lines if not re.search("[kM]B/s", line))  # but for the progress
    assert said.startswith("error: ")
    return said.removeprefix("error: ")


def test_the_catalog_has_families_in_the_order_of_their_rates():
    assert {model.family for model in catalog.PUBLISHED} == set(catalog.FAMILIES)
    for family in catalog.FAMILIES:
        rates = [model.rate for model in catalog.members(family)]
        assert rates == sorted(set(rates))


@OF_BOTH_PROJECTS
def test_a_published_model_is_used_under_its_name_and_its_files_without_it(
    server, cache, capsys, name
):
    file = checkpoint(name, server.folder)
    assert run("get-model", name) == 0
    said = capsys.readouterr()
    folder, sha256 = cache / name, (cache / f"{name}.sha256").read_text().split()[0]
    found, family = load_model(name), catalog.FAMILIES[name.partition("-")[0]]
    if name == NAME:  # What a file says itself counts more than the catalog.
        assert (found.config.input_range, found.config.likelihood) == ("symmetric", "logistic")
    assert said.out.splitlines()[0].startswith(f"{name}: model {found.model_id.hex()}, ")
    assert f"{server.url}/{file.name}" in said.out
    assert f"license: {family.license}: use it {family.terms}\n" in said.out
    assert f"SHA-256: {sha256} (the first seen, recorded for later)" in said.out
    assert in_cache(cache) == [name, f"{name}.sha256"]
    assert found.origin["source"]["sha256"] == sha256
    assert found.config.variant == family.variant

    assert run("get-model", name) == 0
    assert capsys.readouterr().out == f"{name}: is there already: {folder}\n"
    assert len(server.asked) == 1

    Image.fromarray(image_of(40, 50)).save("a.png")
    assert run("compress", "a.png", "--model", name) == 0
    assert run("decompress", "a.fahj", "-o", "b.png") == 0  # The file says which model it needs.
    expected = found.decompress(Path("a.fahj").read_bytes())
    np.testing.assert_array_equal(np.asarray(Image.open("b.png")), expected)
    opened = Image.open("a.fahj")
    assert opened.info["model"] == found.model_id.hex()
    np.testing.assert_array_equal(np.asarray(opened), expected)
    capsys.readouterr()
    run("info", "a.fahj")
    assert f"model   {found.model_id.hex()} ({name})\n" in capsys.readouterr().out


def test_who_converts_the_same_file_gets_the_same_model(fetched, converted, monkeypatch):
    first, file = load_model(NAME).model_id, converted / FILE
    before = file.read_bytes()
    monkeypatch.setenv("XDG_CACHE_HOME", str(fetched.parent / "other"))
    assert run("get-model", NAME, "--from", file) == 0
    assert load_model(NAME).model_id == first
    assert file.read_bytes() == before


@OF_BOTH_PROJECTS
def test_evaluation_and_training_take_the_name(fetched, converted, name):
    assert points.load(name, "--models").id == name
    assert eval_command.default_out(name, "--models") == Path(f"{name}_evaluation")
    imported = import_checkpoint(converted / file_name(catalog.find(name).url))
    settings = from_mapping(tiny_config(init_from=name, loss__dsl=0.0).to_dict())
    settings = dataclasses.replace(settings, model=imported.model)
    assert warm_start.find(settings).step == imported.step
    taken = {f"autoencoder/{key}": leaf for key, leaf in load_parameters(name)[1].items()}
    expected = warm_start.by_name({"autoencoder": imported.autoencoder})
    assert set(taken) == set(expected)
    for key, leaf in taken.items():
        np.testing.assert_array_equal(leaf, expected[key])


@pytest.mark.parametrize(
    ("name", "expected"),
    [("hific-lo", ("symmetric", "gaussian")), ("hific-mi", ("unit", "logistic"))],
)
def test_the_catalog_tells_what_a_file_does_not(cache, tmp_path, name, expected):
    path = tiny_checkpoint(tmp_path / "a.pt", args=None)
    assert run("get-model", name, "--from", path) == 0
    config = load_model(name).config
    assert (config.input_range, config.likelihood) == expected


def test_without_network_the_file_to_bring_is_told(server, cache, capsys):
    said = refused(capsys, "get-model", NAME)
    assert said.startswith(f"{catalog.find(NAME).url}: the server answers 404 Not Found: download")
    assert f"`fa-hific get-model {NAME} --from FILE`" in said
    assert in_cache(cache) == []


@pytest.mark.parametrize("chosen", [[], ["--from", f"published/{FILE}"]])
def test_a_file_other_than_the_first_is_refused(server, fetched, capsys, chosen):
    before = in_cache(fetched)
    tiny_checkpoint(server.folder / FILE, args=None)
    said = refused(capsys, "get-model", NAME, "--force", *chosen)
    assert re.search(r": has the SHA-256 \w{64} instead of \w{64}, so it is", said)
    assert in_cache(fetched) == before
    load_model(NAME)


def web_page(path: Path) -> Path:
    path.write_bytes(b"<!DOCTYPE html><title>Sign in to this network</title>")
    return path


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize(
    ("make", "name", "sentence"),
    [
        (web_page, NAME, "is not a file of torch.save"),
        (tiny_checkpoint, "msillm-0.14", "holds networks of the variant pytorch, but those of"),
    ],
)
def test_bad_files_leave_nothing(server, cache, capsys, make, name, sentence, download):
    published = catalog.find(name)
    path = make(server.folder / file_name(published.url))
    said = refused(capsys, "get-model", name, *([] if download else ["--from", path]))
    assert sentence in said
    assert said.startswith(f"{published.url}: was removed again, because ") is download
    assert in_cache(cache) == [] and path.exists()


def test_a_full_disk_leaves_the_download_alone(server, cache, monkeypatch, capsys):
    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    checkpoint(NAME, server.folder)
    with monkeypatch.context() as patched:
        patched.setattr(writing, "_sync", full)
        said = refused(capsys, "get-model", NAME)
    assert said.startswith(f"{cache / NAME}: cannot be written (No space left on device): free")
    assert in_cache(cache) == [FILE]
    assert run("get-model", NAME) == 0
    assert len(server.asked) == 1 and in_cache(cache) == [NAME, f"{NAME}.sha256"]


def test_names_lead_to_what_to_do(cache, capsys):
    Image.fromarray(image_of(8, 8)).save("a.png")
    every = "hific-lo, hific-mi, hific-hi"
    compress = ("compress", "a.png", "--model")
    for command, sentence in {
        (*compress, NAME): f"{NAME}: is not on this machine: `fa-hific get-model {NAME}` fetches",
        (*compress, "hific-low"): f"hific-low: no such folder or model: the models .* {every}",
        (*compress, "hific"): "hific: none of its models is on this machine: `fa-hific get-model",
        (*compress, "lote"): rf"lote: no such folder, nor a model .*\(lite, {every}, msillm-",
        ("get-model", "lote"): f"lote: no such model: choose one of lite, {every}, msillm-",
    }.items():
        assert re.match(sentence, refused(capsys, *command))
    with pytest.raises(UserError, match=r"^hific: names several models: name one of them, hific-l"):
        load_model("hific")
    with pytest.raises(UserError, match=r"^--models lote: .*or the name of a model \(lite, hific"):
        points.load("lote", "--models")
    assert run("get-model", "lite") == 0
    assert "lite: is there already: " in capsys.readouterr().out
    Path("hific").mkdir()  # A folder of that name is meant, whatever is in it.
    assert shipped.place("hific") == "hific" and shipped.members_of("hific") == []


def test_the_list_tells_what_is_here(fetched, capsys):
    shutil.rmtree(fetched / "msillm-0.14")
    run("models")
    by_name = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert by_name.keys() == {"name", *shipped.known()}
    assert re.search(r"0\.3 +2 GB +Apache-2\.0 +- +yes +HiFiC in PyTorch$", by_name[NAME])
    run("models", "--json")
    described = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert described[NAME]["folder"].endswith(NAME)
    assert described["msillm-0.14"]["folder"] is None
    assert described["msillm-0.14"]["kodak"]["psnr"] == 27.53


@pytest.mark.parametrize(
    ("bpp", "reserved", "expected", "loaded"),
    [
        (0.07, 0, "0.07", ["0.07", "0.14"]),
        (0.2, 0, "0.14", ["0.14", "0.3"]),
        (0.2, 7, "0.07", ["0.14", "0.07"]),  # 13 bytes are left, and a file of 14 is too large.
        (0.01, 0, "0.07", ["0.07"]),  # No file is small enough: the smallest one.
        (5.0, 0, "0.9", ["0.9"]),
        (0.899, 0, "0.3", ["0.3", "0.9"]),
    ],
)
def test_the_highest_rate_that_fits_is_chosen(monkeypatch, bpp, reserved, expected, loaded):
    asked = []

    def load(name):  # A file of 10 x 80 pixels has exactly the rate in the name of its model.
        asked.append(name.rpartition("-")[2])
        size = int(float(asked[-1]) * 100)
        return types.SimpleNamespace(compress=lambda image, **options: bytes(size))

    monkeypatch.setattr("fa_hific_jax.codec.model_folder.load_model", load)
    models = ByRate([catalog.find(f"msillm-{rate}") for rate in ("0.07", "0.14", "0.3", "0.9")])
    data, name = models.compress(np.zeros((10, 80, 3), np.uint8), bpp, reserved=reserved)
    assert name == f"msillm-{expected}" and len(data) == int(float(expected) * 100)
    assert asked == loaded


def test_a_family_codes_at_a_rate_and_decodes_again(cache, tmp_path, capsys):
    for name, factor in (("hific-lo", 0.0), ("hific-mi", 1.0)):
        state = tiny_state()
        state["Encoder.conv_block_out.1.weight"] *= np.float32(factor)
        state["Generator.conv_block_out.1.bias"] += np.float32(factor)  # The id omits the encoder.
        path = tiny_checkpoint(tmp_path / f"{name}.pt", state)
        assert run("get-model", name, "--from", path) == 0
    image = image_of(64, 96)
    Image.fromarray(image).save("a.png")
    sizes = {name: len(load_model(name).compress(image)) for name in ("hific-lo", "hific-mi")}
    assert sizes["hific-lo"] < sizes["hific-mi"]
    capsys.readouterr()
    for name, size in sizes.items():
        rate = 8 * size / (64 * 96)
        assert run("compress", "a.png", "--force", "--model", "hific", "--bpp", rate + 1e-6) == 0
        assert f"a.png: {rate:.3g} bits per pixel with {name}\n" in capsys.readouterr().err
        model_id = bitstream.unpack(Path("a.fahj").read_bytes()).model_id
        assert shipped.with_id(model_id) == name
        back = ["-o", "b.png", "--force"]
        assert run("decompress", "a.fahj", "--model", "hific", *back) == 0
    said = refused(capsys, "compress", "a.png", "--force", "--model", "hific")
    assert said.startswith("hific: has one model for each rate: give --bpp, or one of them as --mo")


@pytest.mark.slow
@OF_BOTH_PROJECTS
def test_full_width_is_fetched_in_less_than_four_gigabytes(cache, tmp_path, data_folder, name):
    path = tmp_path / "published"
    if name == NAME:
        shapes = pytorch_state.hific_shapes()
        state = {name: reference_weights.value(name, shape) for name, shape in shapes.items()}
        torch_files.save(path, {"model_state_dict": state})
    else:
        state = neural_compression_state.full_width(data_folder.parent / "golden")
        torch_files.save(path, state)
    code = f"""
import resource
from fa_hific_jax.cli.main import main
main(["get-model", {name!r}, "--from", {str(path)!r}])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    command, env = [sys.executable, "-c", code], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) * 1024 < 4e9
