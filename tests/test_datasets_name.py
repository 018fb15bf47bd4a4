"""`import datasets` is Hugging Face's package, also from the repository root; ours is `reflexarc.datasets`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def is_hugging_faces(place: str) -> bool:
    return "site-packages" in place and not Path(place).is_relative_to(ROOT / "datasets")


def test_datasets_is_hugging_faces_and_ours_beside_it_is_ours() -> None:
    theirs, *ours = run(
        "import datasets; datasets.Dataset, datasets.load_dataset; print(datasets.__file__)\n"
        "import reflexarc.datasets as ours; print(*ours.__path__, sep='\\n')"
    ).splitlines()
    assert is_hugging_faces(theirs)
    assert {Path(each) for each in ours} == {ROOT / "datasets"}


def test_datasets_is_hugging_faces_after_ours() -> None:
    assert is_hugging_faces(
        run("import reflexarc.datasets, datasets; datasets.load_dataset; print(datasets.__file__)")
    )
