"""Imports go one way, optional packages load late, and the package itself loads nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "fa_hific_jax"
# A name may import what stands in an earlier row.
ORDER = (
    ("errors", "ops", "spectra", "streams"),
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
OPTIONAL = {
    "tensorflow",
    "clu",
    "tensorboardX",
    "skimage",
    "matplotlib",
    "jinja2",
    "plotly",
    "bjontegaard",
    "pillow_jxl",
    "pillow_heif",
    "tensorflow_compression_ops",
    "tensorflow_datasets",
    "array_record",
    "gradio",
    "onnx",
}

MODULES = sorted([*(ROOT / PACKAGE).rglob("*.py"), ROOT / "train.py", ROOT / "eval.py"])


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


def parts_imported(path: Path) -> set[str]:
    dotted = (name.split(".") for name in imports(ast.parse(path.read_text("utf-8"))))
    return {name[1] for name in dotted if name[0] == PACKAGE and name[1] != "__version__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    part = part_of(path)
    if not part:
        assert parts_imported(path) == set()
        return
    for imported in parts_imported(path) - {part}:
        assert ROW[imported] < ROW[part], f"{part} must not import {imported}"


def test_no_name_of_the_order_is_out_of_date():
    assert {part_of(path) for path in MODULES} - {""} == set(ROW)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_optional_packages_are_imported_within_functions(path):
    head = ast.parse(path.read_text("utf-8"))
    unconditional = [n for n in head.body if isinstance(n, ast.Import | ast.ImportFrom)]
    head.body = unconditional
    assert OPTIONAL.isdisjoint(name.split(".")[0] for name in imports(head))


def test_importing_the_package_alone_loads_nothing():
    code = (
        "import sys; before = set(sys.modules); import fa_hific_jax; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [PACKAGE]
