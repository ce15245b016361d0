"""The notebooks: committed without outputs, alike in their installation, running to their end."""

import json
import re
from types import SimpleNamespace

import pytest
from coding_model import many_rates_model
from cpu_devices import ROOT, hasty

from fa_hific_jax.codec.model_folder import save_model

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
EXTRA = "pip install 'fa-hific-jax[dev]'"


def code_cells(path) -> list[dict]:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


INSTALLATION = "".join(code_cells(NOTEBOOKS[0])[0]["source"])


@EACH
def test_it_has_no_outputs_and_installs_what_is_not_installed_as_the_others_do(path):
    cells = code_cells(path)
    for cell in cells:
        assert (cell["outputs"], cell["execution_count"], cell["metadata"]) == ([], None, {})
    assert "".join(cells[0]["source"]) == INSTALLATION


@EACH
def test_what_it_imports_of_the_package_exists(path):
    lines = "".join(line for cell in code_cells(path) for line in [*cell["source"], "\n"])
    imports = re.findall(r"^from fa_hific_jax.*$", lines, re.MULTILINE)
    assert imports
    exec("\n".join(imports), {})


def test_the_installation_takes_a_wheel_where_it_must_and_refuses_the_placeholder(monkeypatch):
    transformer = pytest.importorskip("IPython.core.inputtransformer2", reason=EXTRA)
    cell = transformer.TransformerManager().transform_cell(INSTALLATION)
    asked = []
    shell = SimpleNamespace(run_line_magic=lambda name, line: asked.append(f"{name} {line}"))
    monkeypatch.setenv("FA_HIFIC_SOURCE", "/tmp/fa_hific_jax.whl")
    exec(cell, {"get_ipython": lambda: shell})
    assert asked == []  # The package is there.
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    exec(cell, {"get_ipython": lambda: shell})
    assert asked == ["pip install --quiet {REPOSITORY}"]  # IPython fills in the name
    monkeypatch.delenv("FA_HIFIC_SOURCE")
    with pytest.raises(RuntimeError, match="Set REPOSITORY to the address of the repository"):
        exec(cell, {})


@pytest.mark.long
@EACH
def test_it_runs_from_top_to_end(path, tmp_path, monkeypatch):
    nbclient, nbformat, *_ = (
        pytest.importorskip(name, reason=EXTRA)
        for name in ("nbclient", "nbformat", "ipykernel", "ipywidgets")
    )
    save_model(many_rates_model(), tmp_path / "model")
    variables = {
        "FA_HIFIC_MODEL": tmp_path / "model", "PYTHONPATH": ROOT, "TMPDIR": tmp_path,
        "IPYTHONDIR": tmp_path / "ipython", **hasty(),
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("FA_HIFIC_DATA", raising=False)
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:  # Fewer steps, but more than pass between two looks of `watch`.
        cell.source = cell.source.replace("STEPS = 600", "STEPS = 180")
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in shown) >= 2
    assert not [o for o in shown if o["output_type"] == "stream" and o["name"] == "stderr"]
