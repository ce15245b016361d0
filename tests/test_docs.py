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
LINES = [(page, line) for page in PAGES for line in commands(read(page))]


def flags_of(script: str) -> set[str]:
    """Names of the flags that train or eval defines."""
    tree = ast.parse((ROOT / "fa_hific_jax" / "cli" / f"{script}.py").read_text("utf-8"))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {
        ast.literal_eval(call.args[0])
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr.startswith("DEFINE_")
    }


FLAGS = {script: flags_of(script) | flags_of("with_config") for script in WITH_CONFIGS}


@BY_PAGE
def test_links_lead_to_pages_files_and_headings_that_exist(page):
    text = read(page)
    for link in links(text):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), f"{page}: {link}"


@BY_PAGE
def test_keys_of_the_config_exist(page):
    keys = [name for name, _ in settings.declarations()]
    known = {*keys, *(key.split(".")[0] for key in keys)}
    groups = "|".join(key for key in known if "." not in key)
    text = read(page)
    given = re.findall(r"--config\.([\w.]+)", text)
    given += re.findall(rf"`((?:{groups})\.\w+)(?:=[^`]*)?`", text)  # `loss.gan`, `loss.gan=0`
    assert set(given) - FILES <= known


def calls(pattern: str) -> list[tuple[str, ...]]:
    """(page, groups of the pattern) wherever it occurs in a command; up to the command's end."""
    return [
        (str(page), *match.groups())
        for page, line in LINES
        for match in re.finditer(pattern + r"\b((?:[^&|;]|&(?!&))*)", line)
    ]


TRAIN_AND_EVAL = calls(r"(?:(?:python|\.venv/bin/python) |\bfa-hific )(train|eval)(?:\.py)?")


@pytest.mark.parametrize(("page", "script", "rest"), TRAIN_AND_EVAL)
def test_flags_and_configs_of_train_and_eval_exist(page, script, rest):
    given = re.findall(r"(?:^|\s)--(\w[\w-]*)(?=[=\s.\"]|$)", rest)
    assert set(given) <= FLAGS[script] | {"help"}, page
    for name in re.findall(r"--config[ =]([\w./]+)", rest):
        path = name if name.endswith(".py") else f"configs/{name}.py"
        assert (ROOT / path).is_file(), page


@pytest.mark.parametrize(
    ("page", "command", "rest"),
    [call for call in calls(r"\bfa-hific ([\w-]+)") if call[1] not in WITH_CONFIGS],
)
def test_commands_of_fa_hific_parse(page, command, rest):
    assert command in COMMANDS
    try:
        parser().parse_args([command, *shlex.split(rest)])
    except SystemExit:
        pytest.fail(f"{page}: fa-hific {command}{rest} is refused")


@BY_PAGE
def test_python_is_valid_and_imports_what_exists(page):
    for fence in fences(read(page)):
        if fence.language != "python":
            continue
        for node in ast.walk(ast.parse(fence.code)):
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
    for page in PAGES:
        if page.parts[0] == "docs":
            assert f" {page.relative_to('docs')}\n" in contents


@pytest.mark.long
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "<math" in (tmp_path / "concepts.html").read_text("utf-8")
    assert "focal_frequency_loss" in (tmp_path / "api" / "losses.html").read_text("utf-8")
