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


def test_all_three_are_there():
    assert NAMES == ["compress_your_image", "frequency_losses", "train_tiny"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_no_output_is_committed(path):
    for cell in cells_of(path, "code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None
        assert cell["metadata"] == {}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_the_first_code_is_the_same_installation_which_an_installed_package_skips(path):
    install, common = (cells_of(notebook, "code")[0]["source"] for notebook in (path, NOTEBOOKS[0]))
    assert install == common
    text = "".join(install)
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
    nbclient = pytest.importorskip("nbclient", reason="pip install 'fa-hific-jax[test]'")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel", reason="pip install 'fa-hific-jax[test]'")
    pytest.importorskip("ipywidgets", reason="pip install 'fa-hific-jax[test]'")
    save_model(many_rates_model(), tmp_path / "model")
    monkeypatch.setenv("FA_HIFIC_MODEL", str(tmp_path / "model"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # Compilation takes longest, and what it makes is of no matter here.
    for name, value in hasty().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FA_HIFIC_DATA", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:  # fewer steps: it is compilation that takes the time
        cell.source = cell.source.replace("STEPS = 600", "STEPS = 60")
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in shown) >= 2
    assert not [o for o in shown if o["output_type"] == "stream" and o["name"] == "stderr"]
