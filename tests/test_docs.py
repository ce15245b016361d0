"""The documentation says what is there: links, commands, settings, imports; its blocks run."""

import ast
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from coding_model import coding_model, coding_params, many_rates_model
from cpu_devices import ROOT, hasty, python
from etils import epath
from PIL import Image
from tiny_settings import tiny_settings

from fa_hific_jax import settings
from fa_hific_jax.checkpoints import Checkpoints
from fa_hific_jax.cli.main import COMMANDS, WITH_CONFIGS, parser
from fa_hific_jax.codec.model_folder import save_model
from fa_hific_jax.losses.lpips import expected_shapes
from tools import configuration

# Markdown, as GitHub and the site read it.

PAGES = sorted(
    page.relative_to(ROOT)
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if page.name != "CHANGELOG.md"
)
_FENCE = re.compile(r"(?ms)^(<!-- run -->\n)?^```(\w*)\n(.*?)^```$")


class Fence(NamedTuple):
    """A block of code; `run` where a comment <!-- run --> stands before it."""

    language: str
    code: str
    run: bool


def read(page: Path) -> str:
    return (ROOT / page).read_text("utf-8")


def fences(text: str) -> list[Fence]:
    return [Fence(match[2], match[3], bool(match[1])) for match in _FENCE.finditer(text)]


def links(text: str) -> list[str]:
    """Targets of links and images, outside of fences, inline code and comments."""
    prose = re.sub(r"(?s)<!--.*?-->", "", _FENCE.sub("", text))
    return re.findall(r"\]\(([^()\s]+)\)", re.sub(r"`[^`\n]*`", "`code`", prose))


def anchors(text: str) -> set[str]:
    """Names of the headings as GitHub makes them; the second of a kind ends in -1."""
    headings = re.findall(r"(?m)^#+ (.+)$", _FENCE.sub("", text))
    plain = (re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower() for heading in headings)
    found = Counter(re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain)
    return {f"{name}-{i}" if i else name for name, count in found.items() for i in range(count)}


def commands(text: str) -> list[str]:
    """The lines of all shell blocks, continued ones joined, without comments."""
    code = "\n".join(fence.code for fence in fences(text) if fence.language == "sh")
    lines = re.sub(r"\\\n\s*", "", code).splitlines()
    return [stripped for line in lines if (stripped := re.sub(r"(^|\s)#.*", "", line).strip())]


# What pages name.

BY_PAGE = pytest.mark.parametrize("page", PAGES, ids=str)
FILES = {"train.py", "data.csv"}  # which look like keys


@BY_PAGE
def test_links_lead_to_pages_files_and_headings_that_exist(page):
    for link in links(read(page)):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        if not re.match(r"\w+:", link):
            assert target.exists(), link
            assert not anchor or anchor in anchors(target.read_text("utf-8")), link


@BY_PAGE
def test_keys_of_the_config_exist(page):
    keys = [name for name, _ in settings.declarations()]
    known = {*keys, *(key.split(".")[0] for key in keys)}
    groups = "|".join(key for key in known if "." not in key)
    given = re.findall(r"--config\.([\w.]+)", read(page))
    given += re.findall(rf"`((?:{groups})\.\w+)(?:=[^`]*)?`", read(page))  # `loss.gan=0`
    assert set(given) - FILES <= known


def flags_of(script: str) -> set[str]:
    """Names of the flags that train or eval defines."""
    source = (ROOT / "fa_hific_jax" / "cli" / f"{script}.py").read_text("utf-8")
    return set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source))


def calls(pattern: str) -> list[tuple[str, ...]]:
    """(page, groups of the pattern) wherever it occurs in a command; up to the command's end."""
    return [
        (str(page), *match.groups())
        for page in PAGES
        for line in commands(read(page))
        for match in re.finditer(pattern + r"\b((?:[^&|;]|&(?!&))*)", line)
    ]


TRAIN_AND_EVAL = calls(r"(?:(?:python|\.venv/bin/python) |\bfa-hific )(train|eval)(?:\.py)?")
OTHERS = [call for call in calls(r"\bfa-hific ([\w-]+)") if call[1] not in WITH_CONFIGS]


@pytest.mark.parametrize(("page", "script", "rest"), TRAIN_AND_EVAL)
def test_flags_and_configs_of_train_and_eval_exist(page, script, rest):
    given = re.findall(r"(?:^|\s)--(\w[\w-]*)(?=[=\s.\"]|$)", rest)
    assert set(given) <= flags_of(script) | flags_of("with_config") | {"help"}, page
    for name in re.findall(r"--config[ =]([\w./]+)", rest):
        path = name if name.endswith(".py") else f"configs/{name}.py"
        assert (ROOT / path).is_file(), page


@pytest.mark.parametrize(("page", "command", "rest"), OTHERS)
def test_commands_of_fa_hific_parse(page, command, rest):
    assert command in COMMANDS
    try:
        parser().parse_args([command, *shlex.split(rest)])
    except SystemExit:
        pytest.fail(f"{page}: fa-hific {command}{rest} is refused")


@BY_PAGE
def test_python_is_valid_and_imports_what_exists(page):
    trees = [ast.parse(fence.code) for fence in fences(read(page)) if fence.language == "python"]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fa_hific_jax"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


def test_the_page_of_settings_is_up_to_date():
    assert configuration.PAGE.read_text("utf-8") == configuration.page(), (
        "fa_hific_jax/settings has changed: run python -m tools.configuration"
    )


def test_every_page_is_in_the_sites_table_of_contents():
    contents = (ROOT / "mkdocs.yml").read_text("utf-8")
    pages = [page.relative_to("docs") for page in PAGES if page.parts[0] == "docs"]
    assert [page for page in pages if f" {page}\n" not in contents] == []


@pytest.mark.long
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "<math" in (tmp_path / "concepts.html").read_text("utf-8")
    assert "focal_frequency_loss" in (tmp_path / "api" / "losses.html").read_text("utf-8")


# Blocks behind <!-- run --> are carried out as they stand.

RUNNABLE = [page for page in PAGES if any(fence.run for fence in fences(read(page)))]


@pytest.fixture
def folder(tmp_path) -> Path:
    """What the blocks name, small: the repository's scripts, photographs, runs and models."""
    for name in ("train.py", "eval.py", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    data = pytest.importorskip("skimage.data")
    for name in ("chelsea", "coffee"):
        # Large enough for all five scales of MS-SSIM.
        picture = Image.fromarray(getattr(data, name)()[:192, :222])
        for place in ("photos", "kodak"):
            (tmp_path / place).mkdir(exist_ok=True)
            picture.save(tmp_path / place / f"{name}.png")
    picture.save(tmp_path / "photo.png")
    picture.save(tmp_path / "photo.jpg")
    tiny = tiny_settings(data__evaluation="photos", evaluation__baseline_points=3)
    for seed, name in enumerate(("demo", "fa_lo", "a", "b")):
        checkpoints = Checkpoints(epath.Path(tmp_path / "runs" / name), kept=1)
        checkpoints.save(1, coding_params(seed), {"sigma": jnp.zeros((1, 2))}, tiny)
        checkpoints.close()
    (tmp_path / "models").mkdir()
    save_model(coding_model(), tmp_path / "models" / "c")
    save_model(many_rates_model(), tmp_path / "models" / "lite")
    random, shapes = np.random.default_rng(0), expected_shapes("alex").items()
    arrays = {name: random.uniform(0, 0.1, shape).astype(np.float32) for name, shape in shapes}
    np.savez(tmp_path / "lpips_alex.npz", **arrays)
    return tmp_path


@pytest.mark.long
@pytest.mark.parametrize("page", RUNNABLE, ids=str)
def test_blocks_run_as_they_stand(page, folder, tmp_path_factory):
    programs = tmp_path_factory.mktemp("programs")
    for name, arguments in {"python": "", "fa-hific": "-m fa_hific_jax "}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        (programs / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FA_HIFIC_")}
    ours = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    options = {"cwd": folder, "env": kept | hasty() | ours, "capture_output": True, "text": True}
    for fence in (fence for fence in fences(read(page)) if fence.run):
        how = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": ["python", "-c"]}[fence.language]
        done = subprocess.run([*how, fence.code], timeout=900, **options)
        assert done.returncode == 0, f"{fence.code}\n{done.stdout}\n{done.stderr}"


# The example loss of docs/extending.md is added to a copy of the package as the page says.

# Where the lines of the page's second and third block belong.
PLACES = (
    ("fa_hific_jax/settings/loss.py", "class LossConfig"),
    ("fa_hific_jax/training/terms.py", "TERMS = ("),
)
IMPORT = "from fa_hific_jax.losses.charbonnier import charbonnier\n"
CHECK = """
import functools
import jax, jax.numpy as jnp, numpy as np
from tiny_settings import tiny_settings
from fa_hific_jax.training.state import create
from fa_hific_jax.training.step import forward, make_batch, train_step

assert tiny_settings().loss.charbonnier == 0.0
off = {f"loss__{name}": 0.0 for name in ("mse", "gan", "ffl", "dsl", "lambda_below")}
settings = tiny_settings(loss__charbonnier=0.5, loss__target_bpp=1e9, model__fcm_width=0, **off)
state = jax.jit(functools.partial(create, settings))(jax.random.key(0))
images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
key = jax.random.key(3)
_, metrics = jax.jit(functools.partial(train_step, settings=settings))(state, images, key, None)

batch = make_batch(jnp.asarray(images), key, state.step, settings)
run = jax.jit(functools.partial(forward, settings=settings))
error = batch.x - run(state.params["autoencoder"], batch).x_hat
root = np.sqrt(np.square(error) + 1e-6)
np.testing.assert_allclose(metrics["charbonnier"], np.mean(root), rtol=1e-5)
np.testing.assert_allclose(metrics["loss"], 0.5 * np.mean(root), rtol=1e-5)
assert float(metrics["grad_norm_term/charbonnier"]) > 1e-3
"""


@pytest.mark.long
def test_a_loss_takes_its_file_its_config_field_and_one_line(tmp_path):
    page = read(Path("docs/extending.md"))
    loss, *lines = [fence.code for fence in fences(page) if fence.language == "python"][:3]
    for name in ("fa_hific_jax", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("shipped"))
    (tmp_path / "fa_hific_jax/losses/charbonnier.py").write_text(loss)
    lines[1] = next(line.strip() for line in lines[1].splitlines() if "Term(" in line) + "\n"
    for (name, place), added in zip(PLACES, lines, strict=True):
        source = (tmp_path / name).read_text()
        before, found, after = source.partition(place)
        assert found, f"{name} has no {place!r}"
        if "class" in place:  # its fields come after the docstring
            head, quotes, after = after.partition('"""\n\n')
            found += head + quotes
        else:
            found, after = f"{found}\n", after.removeprefix("\n")
        (tmp_path / name).write_text(before + found + textwrap.indent(added, "    ") + after)
    terms = tmp_path / "fa_hific_jax/training/terms.py"
    terms.write_text(
        terms.read_text().replace("from fa_hific_jax", f"{IMPORT}from fa_hific_jax", 1)
    )
    paths = f"{tmp_path}{os.pathsep}{ROOT / 'tests'}"
    done = python("-c", CHECK, cwd=tmp_path, PYTHONPATH=paths)
    assert done.returncode == 0, done.stderr
