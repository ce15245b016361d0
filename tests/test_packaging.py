"""What is built from a copy of the repository is whole, and works without the repository."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from cpu_devices import hasty

from fa_hific_jax import __version__

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "fa_hific_jax"
PARTS = ("pyproject.toml", "README.md", "LICENSE", ".gitignore", "configs", PACKAGE, "tests")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with an sdist of a copy, and the wheel that `python -m build` makes of that."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    copy = tmp_path_factory.mktemp("copy")
    for part in PARTS:
        if (ROOT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, copy / part, ignore=ignored)
        else:
            shutil.copy(ROOT / part, copy / part)
    data = copy / PACKAGE / "shipped" / "more" / "weights.safetensors"
    data.parent.mkdir(parents=True)
    data.write_bytes(b"not weights, but data of the package")
    out = tmp_path_factory.mktemp("dist")
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


def run(installed: Path, folder: Path, *arguments) -> subprocess.CompletedProcess:
    """Python in an empty folder, with the installed wheel before all else that is."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FA_HIFIC_")}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=kept | hasty() | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.long
def test_wheel_holds_code_data_configs_and_licence_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {
        f"{PACKAGE}/{path.relative_to(ROOT / PACKAGE)}"
        for path in (ROOT / PACKAGE).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    configs = {f"{PACKAGE}/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    data = {f"{PACKAGE}/shipped/more/weights.safetensors"}
    of_wheel = {name for name in names if ".dist-info/" in name}
    assert names - of_wheel == sources | configs | data
    assert {f"{PACKAGE}/py.typed", f"{PACKAGE}/evaluation/literature.json"} < names
    assert f"fa_hific_jax-{__version__}.dist-info/licenses/LICENSE" in of_wheel


@pytest.mark.long
def test_sdist_holds_what_the_wheel_is_built_from_and_the_tests(built):
    with tarfile.open(built / f"fa_hific_jax-{__version__}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "configs/base.py", "tests/conftest.py"} < names


@pytest.mark.long
def test_installed_wheel_is_imported_and_answers_in_an_empty_folder(installed, tmp_path):
    where = run(installed, tmp_path, "-c", "import fa_hific_jax; print(fa_hific_jax.__file__)")
    assert where.stdout.strip() == str(installed / PACKAGE / "__init__.py")
    shown = run(installed, tmp_path, installed / "bin" / "fa-hific", "--help")
    assert shown.returncode == 0 and "compress" in shown.stdout and "train" in shown.stdout
    shown = run(installed, tmp_path, "-m", PACKAGE, "--version")
    assert shown.stdout == f"fa-hific {__version__}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_installed_wheel_knows_its_configs_by_name(installed, tmp_path):
    command = ("-m", PACKAGE, "train", "--workdir", tmp_path / "run")
    without = "--config.loss.lpips_file="
    for name in ("hific:lo", "configs/hific.py:lo"):
        said = run(installed, tmp_path, *command, "--config", name, without).stderr
        assert said.startswith("error: loss.lpips_file is '': LPIPS needs weights")
    said = run(installed, tmp_path, *command, "--config=hific:low").stderr
    assert f"{installed}/{PACKAGE}/configs/hific.py, line " in said
    said = run(installed, tmp_path, *command, "--config", "no").stderr
    assert said.startswith("error: --config no: no such file: give one that exists, or base, ")


@pytest.mark.long
def test_config_of_a_user_builds_on_those_of_the_installed_wheel(installed, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from configs import tiny\ndef get_config():\n    config = tiny.get_config()\n"
        "    config.loss.gan_kind = tiny.__file__\n    return config\n"
    )
    command = ("-m", PACKAGE, "train", "--config", "mine.py", "--workdir", "run")
    said = run(installed, tmp_path, *command).stderr
    tiny = installed / PACKAGE / "configs" / "tiny.py"
    assert said.startswith(f"error: loss.gan_kind is '{tiny}': choose one of")


def test_what_users_install_is_pinned_as_it_is_tested():
    def pins(name: str) -> set[str]:
        lines = (ROOT / name).read_text().splitlines()
        return {line for line in lines if line and not line.startswith("#")}

    assert pins("requirements.txt") < pins("requirements-dev.txt")
    assert not any("tensorflow" in pin for pin in pins("requirements.txt"))
