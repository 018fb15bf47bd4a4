"""Run `mypy --strict` over our packages, under the names that they are imported by.

The folders stand at the top level but are imported as `reflexarc.<folder>`; given the folders as they are, mypy
finds nothing under that name and reports success. So it gets a generated tree of links, `build/typed/reflexarc`,
that has the shape of the installed package. The paths it prints are turned back into those of the sources, and a
success over fewer files than there are is a failure.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

ALSO = ("scripts", "benchmarks", "examples")
"""Folders of programs, checked under their own names."""


def main(root: Path) -> int:
    """Check the project at `root` and print what mypy says; returns its exit status, 2 if it missed files."""
    folders = package_folders(root)
    tree = link_tree(root, folders)
    also = [name for name in ALSO if any((root / name).glob("*.py"))]
    expected = sum(1 for place in (tree, *(root / name for name in also)) for _ in place.rglob("*.py"))
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "build/typed", *also]
    # A program finds the modules that stand beside it.
    places = [str(tree), *(str(root / name) for name in also)]
    environment = {**os.environ, "MYPYPATH": os.pathsep.join(places)}
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    output = source_paths(result.stdout, folders)
    print(output + result.stderr, end="", flush=True)
    checked = re.search(r"(\d+) source files?\b", output)
    if result.returncode == 0 and (checked is None or int(checked[1]) != expected):
        print(f"mypy looked at {checked[1] if checked else 0} files, there are {expected}", file=sys.stderr)
        return 2
    return result.returncode


def package_folders(root: Path) -> dict[str, str]:
    """`{import name: folder}` as setuptools has it."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    folders: dict[str, str] = project["tool"]["setuptools"]["package-dir"]
    return folders


def link_tree(root: Path, folders: Mapping[str, str]) -> Path:
    """Make `root/build/typed` anew: real folders, links to the sources; returns it."""
    tree = root / "build" / "typed"
    shutil.rmtree(tree, ignore_errors=True)
    for package, folder in folders.items():
        for source in sorted((root / folder).rglob("*.py*")):
            if source.suffix in (".py", ".pyi"):
                link = tree.joinpath(*package.split("."), source.relative_to(root / folder))
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(source)
    return tree


def source_paths(output: str, folders: Mapping[str, str]) -> str:
    """mypy's output with `build/typed/reflexarc/wire/…` written as `wire/…`."""
    for package in sorted(folders, key=len, reverse=True):
        output = output.replace(f"build/typed/{package.replace('.', '/')}/", f"{folders[package]}/")
    return output


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent.parent))
