"""The wheel: installed elsewhere and started in an empty folder, it sweeps."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from runner.grid.config import conf_dir

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
SWEEP = ["sweep", "width=16,32", "lr=0.1,0.2", "steps=10", "device=cpu"]


def run(command, cwd):
    """Run a command without this environment's own paths; return what it printed."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [str(word) for word in command]
    done = subprocess.run(
        command, cwd=cwd, env=inherited, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run([*PIP, "wheel", ROOT, "--no-deps", "--no-build-isolation", "--no-index", "-w", folder], folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Return the programs' folder of a new environment with the wheel, and this one's libraries."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(home, symlinks=os.name != "nt")
    paths = sysconfig.get_paths("venv", vars={"base": str(home), "platbase": str(home)})
    programs = Path(paths["scripts"])
    run([*PIP, "--python", programs / "python", "install", "--no-deps", "--no-index", wheel], home)
    # A .pth file that is found through a .pth file is not read: an editable install stays out of sight.
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(paths["purelib"]) / "dependencies.pth").write_text("\n".join(sorted(ours)) + "\n")
    return programs


def test_the_wheel_holds_the_package_and_its_configs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    configs = {f"runner/conf/{path.relative_to(conf_dir())}" for path in conf_dir().rglob("*.yaml")}
    assert configs <= set(names)
    assert "hydra_plugins/runner_grid/__init__.py" in names
    assert "runner/py.typed" in names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"runner", "hydra_plugins"}
    assert not [name for name in names if "__pycache__" in name or "/." in name or "/_plugins/" in name]
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_sweeps_in_an_empty_folder(installed, tmp_path):
    imported = run([installed / "python", "-c", "import runner; print(runner.__file__)"], tmp_path)
    assert Path(imported.strip()).is_relative_to(installed.parent)
    assert "sweep" in run([installed / "runner", "--help"], tmp_path)
    run([installed / "runner", *SWEEP], tmp_path)
    (cells,) = tmp_path.glob("outputs/*/cells")
    table = pd.read_parquet(cells)
    assert sorted(zip(table["width"], table["lr"], table["status"], strict=True)) == [
        (width, lr, "ok") for width in (16, 32) for lr in (0.1, 0.2)
    ]
    assert "report.html" in run([installed / "runner", "report"], tmp_path)  # its template is in the wheel
