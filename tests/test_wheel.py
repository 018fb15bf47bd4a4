"""A wheel holds every sub-package and every data file, and works where there is no source checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("setuptools")

ROOT = Path(__file__).resolve().parent.parent
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS: dict[str, str] = SETUPTOOLS["package-dir"]
DATA = ("*.yaml", "*.xml", "*.safetensors", "*.json", "*.md")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, offline, so that nothing is left in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in FOLDERS.values():
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    result = subprocess.run(
        [*command, "--quiet", "--wheel-dir", str(out), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return next(out.glob("reflexarc-*.whl"))


def test_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    expected = set()
    for package, folder in FOLDERS.items():
        patterns = ("*.py", *(DATA if folder in ("configs", "vla") else ()))
        for pattern in patterns:
            for path in (ROOT / folder).rglob(pattern):
                expected.add("/".join((*package.split("."), *path.relative_to(ROOT / folder).parts)))
    missing = expected - set(zipfile.ZipFile(wheel).namelist())
    assert not missing, f"not in the wheel: {sorted(missing)}"


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert all(name.startswith(("reflexarc/", "reflexarc-")) for name in names)
    assert "reflexarc/datasets/__init__.py" not in names


def test_wheel_works_without_a_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import reflexarc, reflexarc.datasets, reflexarc.wire.messages\n"
        "from reflexarc.configs.load import load_robot, resolve_asset\n"
        "robot = load_robot('panda')\n"
        "assert resolve_asset(robot.mjcf).is_file()\n"
        "print(reflexarc.__file__, *reflexarc.__path__, *reflexarc.datasets.__path__, resolve_asset(robot.mjcf))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert all(Path(place).is_relative_to(site) for place in result.stdout.split())
