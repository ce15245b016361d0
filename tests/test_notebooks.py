"""The notebooks: committed without outputs, alike in their installation, running to their end."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from coding_model import many_rates_model
from cpu_devices import hasty

from fa_hific_jax.codec.model_folder import save_model

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]


def cells_of(path: Path, kind: str) -> list[dict]:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_it_has_no_outputs_and_installs_what_is_not_installed_as_the_others_do(path):
    cells = cells_of(path, "code")
    for cell in cells:
        assert (cell["outputs"], cell["execution_count"], cell["metadata"]) == ([], None, {})
    assert cells[0]["source"] == cells_of(NOTEBOOKS[0], "code")[0]["source"]
    text = "".join(cells[0]["source"])
    guard = text.index('if importlib.util.find_spec("fa_hific_jax") is None:')
    assert guard < text.index("%pip") and guard < text.index('"clone"')
    assert all(line.startswith("    ") for line in text[guard:].splitlines()[1:])


@pytest.mark.parametrize("source", [None, "/tmp/fa_hific_jax.whl"])
def test_the_installation_takes_a_wheel_and_refuses_the_placeholder(source, monkeypatch):
    pytest.importorskip("IPython", reason="pip install 'fa-hific-jax[dev]'")
    from IPython.core.inputtransformer2 import TransformerManager

    cell = TransformerManager().transform_cell("".join(cells_of(NOTEBOOKS[0], "code")[0]["source"]))
    asked = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    shell = SimpleNamespace(run_line_magic=lambda name, line: asked.append(f"{name} {line}"))
    if source is None:
        monkeypatch.delenv("FA_HIFIC_SOURCE", raising=False)
        with pytest.raises(RuntimeError, match="Set REPOSITORY to the address of the repository"):
            exec(cell, {"get_ipython": lambda: shell})
    else:
        monkeypatch.setenv("FA_HIFIC_SOURCE", source)
        exec(cell, {"get_ipython": lambda: shell})
        assert asked == ["pip install --quiet {REPOSITORY}"]  # IPython fills in the name


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_it_runs_from_top_to_end(path, tmp_path, monkeypatch):
    nbclient, nbformat, *_ = (
        pytest.importorskip(name, reason="pip install 'fa-hific-jax[dev]'")
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
