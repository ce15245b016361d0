"""Imports go one way, optional packages load late, and the package itself loads nothing."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from cpu_devices import ROOT, python

PACKAGE = "fa_hific_jax"
# A name may import what stands in an earlier row.
ORDER = (
    ("cpu", "errors", "ops", "spectra", "streams"),
    ("writing", "blur", "cache"),
    ("fidelity", "interrupts"),
    ("settings",),
    ("entropy", "losses", "data"),
    ("models", "metrics"),
    ("codec", "checkpoints"),
    ("training", "evaluation", "convert"),
    ("demo", "pillow"),
    ("cli",),
    ("train", "eval", "__main__"),
)
ROW = {name: row for row, names in enumerate(ORDER) for name in names}
# Those of the extras: a plain installation has none of them.
OPTIONAL = set(
    "tensorflow clu tensorboardX skimage matplotlib jinja2 plotly bjontegaard pillow_jxl "
    "pillow_heif tensorflow_compression_ops tensorflow_datasets array_record gradio onnx".split()
)
MODULES = sorted([*(ROOT / PACKAGE).rglob("*.py"), ROOT / "train.py", ROOT / "eval.py"])
TREES = {path: ast.parse(path.read_text("utf-8")) for path in MODULES}


def part_of(path: Path) -> str:
    """The name of a file in the order, "" for the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0] if len(parts) == 1 else parts[1].removeprefix("__init__")


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all modules, and of what is taken from them, anywhere in the code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_go_one_way():
    assert {part_of(path) for path in TREES} - {""} == set(ROW)
    for path, tree in TREES.items():
        part = part_of(path)
        dotted = (name.split(".") for name in imports(tree))
        found = {name[1] for name in dotted if name[0] == PACKAGE} - {"__version__", part}
        backward = [name for name in found if not part or ROW[name] >= ROW[part]]
        assert not backward, f"{path.relative_to(ROOT)} must not import {backward}"


def test_optional_packages_are_imported_within_functions():
    for path, tree in TREES.items():
        heads = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        early = {name.split(".")[0] for name in imports(ast.Module(heads, []))} & OPTIONAL
        assert not early, f"{path.relative_to(ROOT)} imports {early} at its head"


OPENED = "from PIL import Image; Image.open('tests/golden/v2/tall.fahj')"


@pytest.mark.parametrize(
    ("code", "spared"),
    [
        ("import fa_hific_jax", {"jax", "numpy", "flax", "PIL", "argparse"}),
        ("from fa_hific_jax.cli import main; main.parser()", {"jax", "numpy", "flax", "PIL"}),
        (f"import fa_hific_jax.pillow; {OPENED}", {"jax", "flax"}),
    ],
)
def test_what_begins_at_once_loads_nothing_slow(code, spared):
    loaded = python("-c", f"import sys; {code}; print(*sys.modules)").stdout.split()
    assert PACKAGE in loaded and spared.isdisjoint(loaded)
