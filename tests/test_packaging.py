"""What is built from a copy of the repository is whole, and works without the repository."""

import functools
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from cpu_devices import ROOT, python

from fa_hific_jax import __version__

PACKAGE = "fa_hific_jax"
PARTS = ("pyproject.toml", "README.md", "LICENSE", ".gitignore", "configs", PACKAGE, "tests")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with an sdist of a copy, and the wheel that `python -m build` makes of that."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for part in PARTS:
        if (ROOT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, copy / part, ignore=ignored)
        else:
            shutil.copy(ROOT / part, copy / part)
    more = copy / PACKAGE / "shipped" / "more"
    more.mkdir(parents=True)
    (more / "weights.safetensors").write_bytes(b"not weights, but data of the package")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    return out


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """A folder with the wheel as pip installs it; dependencies are this environment's."""
    pytest.importorskip("pip")
    target = tmp_path_factory.mktemp("site")
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True, timeout=300)
    return target


@pytest.fixture
def run(installed, tmp_path, monkeypatch):
    """Runs Python in an empty folder, with the installed wheel before all else that is."""
    for name in os.environ:
        if name.startswith("FA_HIFIC_"):
            monkeypatch.delenv(name)
    return functools.partial(python, cwd=tmp_path, PYTHONPATH=str(installed))


@pytest.mark.long
def test_wheel_and_sdist_hold_code_data_configs_licence_and_tests(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / PACKAGE).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    configs = {f"{PACKAGE}/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    of_wheel = {name for name in names if ".dist-info/" in name}
    data = {f"{PACKAGE}/shipped/more/weights.safetensors"}
    assert names - of_wheel == sources | configs | data
    assert {f"{PACKAGE}/py.typed", f"{PACKAGE}/evaluation/literature.json"} < names
    assert f"fa_hific_jax-{__version__}.dist-info/licenses/LICENSE" in of_wheel
    with tarfile.open(built / f"fa_hific_jax-{__version__}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "configs/base.py", "tests/conftest.py"} < names


@pytest.mark.long
def test_installed_wheel_is_imported_and_answers_in_an_empty_folder(installed, run, tmp_path):
    where = run("-c", "import fa_hific_jax; print(fa_hific_jax.__file__)")
    assert where.stdout.strip() == str(installed / PACKAGE / "__init__.py")
    shown = run(installed / "bin" / "fa-hific", "--help")
    assert shown.returncode == 0 and "compress" in shown.stdout and "train" in shown.stdout
    assert run("-m", PACKAGE, "--version").stdout == f"fa-hific {__version__}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_installed_wheel_knows_its_configs_by_name_and_those_of_users_build_on_them(
    installed, run, tmp_path
):
    (tmp_path / "mine.py").write_text(
        "from configs import tiny\ndef get_config():\n    config = tiny.get_config()\n"
        "    config.loss.gan_kind = tiny.__file__\n    return config\n"
    )
    configs = installed / PACKAGE / "configs"
    for arguments, expected in (
        (["hific:lo", "--config.loss.lpips_file="], "loss.lpips_file is '': LPIPS needs weights"),
        (["configs/hific.py:lo", "--config.loss.lpips_file="], "loss.lpips_file is '': LPIPS need"),
        (["hific:low"], f"{configs}/hific.py, line "),
        (["no"], "--config no: no such file: give one that exists, or base, "),
        (["mine.py"], f"loss.gan_kind is '{configs}/tiny.py': choose one of"),
    ):
        said = run("-m", PACKAGE, "train", "--workdir", "run", "--config", *arguments).stderr
        assert said.startswith(f"error: {expected}")


def test_what_users_install_is_pinned_as_it_is_tested():
    users, developers = (
        {line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")}
        for name in ("requirements.txt", "requirements-dev.txt")
    )
    assert users < developers and not any("tensorflow" in pin for pin in users)
