"""The examples run as their headers say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXPECTED = {
    "expert_episode.py": r"'.+': done in \d+\.\d s of simulated time",
    "own_policy.py": r"the tool moved within 0\.\d+ m by 0\.\d+ m.*\nsafety limited .*; it is active",
}


def test_every_example_is_run_and_listed() -> None:
    programs = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert programs == set(EXPECTED)
    listed = (ROOT / "examples" / "README.md").read_text()
    assert all(f"examples/{name}" in listed for name in programs)


@pytest.mark.parametrize("name", EXPECTED)
def test_example(name: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert re.search(EXPECTED[name], result.stdout), result.stdout
    assert not list(tmp_path.iterdir())
