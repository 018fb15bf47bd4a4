"""`make lint` type-checks our packages for real: an error planted in any of them is found, none is passed over."""

from __future__ import annotations

import importlib.util
import shutil
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = sorted(
    tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"].values()
)

# The error can only be seen by a checker that follows `reflexarc.configs` to its source.
PLANTED = "from reflexarc.configs.errors import unknown\n\nx: int = unknown('a', 'b', [])\n"


@pytest.fixture(scope="module")
def typecheck() -> ModuleType:
    spec = importlib.util.spec_from_file_location("typecheck", ROOT / "scripts" / "typecheck.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project with the real `pyproject.toml`, the real error tree and every package folder."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
        if folder != "datasets":
            (tmp_path / folder / "__init__.py").touch()
    shutil.copy(ROOT / "configs" / "errors.py", tmp_path / "configs")
    return tmp_path


def test_planted_errors_are_found_everywhere(
    typecheck: ModuleType, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typecheck.main(project) == 0
    for folder in FOLDERS:
        (project / folder / "deeper").mkdir()
        (project / folder / "deeper" / "planted.py").write_text(PLANTED)
    assert typecheck.main(project) == 1
    output = capsys.readouterr().out
    for folder in FOLDERS:
        assert f"{folder}/deeper/planted.py:3: error: Incompatible types in assignment" in output


def test_a_success_that_missed_files_is_a_failure(
    typecheck: ModuleType, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(
        settings.replace("[tool.mypy]", '[tool.mypy]\nexclude = "planted"')
    )
    (project / "wire" / "planted.py").write_text(PLANTED)
    assert typecheck.main(project) == 2
    assert "there are" in capsys.readouterr().err
