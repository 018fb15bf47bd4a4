"""Lists the packages for setuptools: every folder with Python in it below those that `pyproject.toml` maps.

Everything else about the package stands in `pyproject.toml`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent


def packages() -> list[str]:
    """Import names, e.g. `reflexarc.sim.tasks` for `sim/tasks/`."""
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    found = set()
    for package, folder in folders.items():
        for module in (ROOT / folder).rglob("*.py"):
            inner = module.parent.relative_to(ROOT / folder).parts
            found.add(".".join((package, *inner)))
    return sorted(found)


setup(packages=packages())
