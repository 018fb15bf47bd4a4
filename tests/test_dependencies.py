"""What is declared, locked, explained and imported is one and the same list."""

from __future__ import annotations

import functools
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest

from test_layering import TORCH_FREE, imports_of

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {name: (ROOT / "requirements" / f"{name}.txt").read_text() for name in ("lock", "ray")}
PART_OF = {"pydantic_core": "pydantic"}
"""Modules of a package that come as a distribution of their own, at the very version that the package needs."""
FOLDERS = (*TORCH_FREE, "sim", "datasets", "vla", "reflexarc")


def names(requirements: list[str]) -> set[str]:
    """Normalised distribution names, without our own extras."""
    found = {re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", each)[0]).lower() for each in requirements}
    return found - {"reflexarc"}


BASE = names(PROJECT["dependencies"])
DECLARED = {"": BASE, **{extra: names(each) for extra, each in PROJECT["optional-dependencies"].items()}}
ALL = set().union(*DECLARED.values())


@functools.cache
def owners_of() -> dict[str, list[str]]:
    """`{module: its distributions}` of everything installed, which takes a second to read."""
    return dict(importlib.metadata.packages_distributions())


def third_party(folder: str, *, deferred: bool) -> dict[str, str]:
    """`{distribution: an import of it}` in a folder; imports inside functions only if `deferred`."""
    places = owners_of()
    found = {}
    for each in imports_of(folder):
        top = each.name.split(".")[0]
        if top in sys.stdlib_module_names or top == "reflexarc" or (each.deferred and not deferred):
            continue
        top = PART_OF.get(top, top)
        owners = {re.sub(r"[-_.]+", "-", owner).lower() for owner in places.get(top, [top])}
        found[min(owners & ALL, default=min(owners))] = str(each)
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_import_is_declared(folder: str) -> None:
    undeclared = {
        name: place for name, place in third_party(folder, deferred=True).items() if name not in ALL
    }
    assert not undeclared


@pytest.mark.parametrize("folder", TORCH_FREE)
def test_a_robots_computer_needs_no_extra(folder: str) -> None:
    extra = {name: place for name, place in third_party(folder, deferred=False).items() if name not in BASE}
    assert not extra


def test_every_dependency_is_explained_once_under_its_extra() -> None:
    explained: dict[str, set[str]] = {}
    extra = None
    for line in (ROOT / "docs" / "dependencies.md").read_text().splitlines():
        if line.startswith("## "):
            label = re.match(r"## `\[(\w+)\]`", line)
            extra = label[1] if label else ""
        row = re.match(r"\| `([\w-]+)` \| \S.{9,}", line)
        if row and extra is not None:
            assert row[1] not in explained.setdefault(extra, set())
            explained[extra].add(row[1])
    assert explained == {extra: found for extra, found in DECLARED.items() if extra != "all"}


@pytest.mark.parametrize("name", LOCKS)
def test_lock_pins_every_dependency_with_hashes_and_names_no_registry(name: str) -> None:
    lock = LOCKS[name]
    pinned = set(re.findall(r"^([a-z0-9-]+)==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", lock, re.MULTILINE))
    assert set(re.findall(r"^[^\s#]+", lock, re.MULTILINE)) == set(
        re.findall(r"^[a-z0-9.-]+==\S+(?= \\$)", lock, re.MULTILINE)
    )
    assert pinned >= (ALL if name == "ray" else ALL - DECLARED["ray"])
    assert "://" not in lock
    assert not re.search(r"^\s*--(?!hash)", lock, re.MULTILINE)


def test_the_lock_of_a_cluster_only_adds_to_the_other() -> None:
    pins = {name: set(re.findall(r"^\S+==\S+", lock, re.MULTILINE)) for name, lock in LOCKS.items()}
    assert pins["ray"] > pins["lock"]
