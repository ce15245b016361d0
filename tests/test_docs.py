"""The documentation says what is there: links, commands, settings and imports."""

import ast
import importlib
import re
import shlex
import subprocess
import sys

import pytest
from doc_pages import PAGES, ROOT, anchors, commands, fences, links, read

from fa_hific_jax import settings
from fa_hific_jax.cli.main import COMMANDS, WITH_CONFIGS, parser
from tools import configuration

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
