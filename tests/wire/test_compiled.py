"""Kernels are cached by the text of all files that hold kernels, and compile without a cache where none can be kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import numpy as np
from reflexarc.safety.singularity import extreme_singular_values
print(extreme_singular_values(np.eye(6)))
"""


def run(cache: Path) -> str:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
    )
    return done.stdout.strip()


def test_a_kernel_is_compiled_once_for_one_version(tmp_path: Path) -> None:
    assert run(tmp_path) == "(1.0, 1.0)"
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")}
    assert written
    assert run(tmp_path) == "(1.0, 1.0)"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")} == written


def test_without_a_place_for_the_cache_kernels_still_run(tmp_path: Path) -> None:
    blocked = tmp_path / "a file, not a folder"
    blocked.write_text("")
    assert run(blocked) == "(1.0, 1.0)"
