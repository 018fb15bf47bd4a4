"""`import datasets` is Hugging Face's package, also from the repository root; ours is `reflexarc.datasets`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(code: str) -> str:
    """Standard output of `code` in a fresh interpreter that was started in the repository root."""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_our_folder_is_not_a_package_by_itself() -> None:
    assert not (ROOT / "datasets" / "__init__.py").exists()


@pytest.mark.parametrize("first", ["import reflexarc.datasets", "pass"])
def test_datasets_is_hugging_faces(first: str) -> None:
    place = run(
        f"{first}\nimport datasets; datasets.Dataset, datasets.load_dataset; print(datasets.__file__)"
    )
    assert "site-packages" in place
    assert not Path(place).is_relative_to(ROOT / "datasets")


def test_reflexarc_datasets_is_ours() -> None:
    place = run("import datasets, reflexarc.datasets as ours; print(*ours.__path__)")
    assert {Path(each) for each in place.split()} == {ROOT / "datasets"}
