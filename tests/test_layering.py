"""Imports run one way, by the table in docs/architecture.md, and five packages do without torch."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

LOW = {"configs", "wire"}
ALLOWED: dict[str, set[str]] = {
    "configs": set(),
    "wire": {"configs"},
    "safety": LOW,
    "robots": LOW | {"safety"},
    "controllers": LOW,
    "sim": LOW | {"robots", "controllers", "safety"},
    "datasets": LOW,
    "vla": LOW | {"datasets"},
}
"""Folder -> folders of ours that it may import, beside itself. The front door, `reflexarc/`, may import all."""

TORCH_FREE = ("safety", "robots", "controllers", "wire", "configs")
HEAVY = ("torch", "transformers", "lerobot")


@dataclass(frozen=True)
class Import:
    """One import. name: dotted, as far as it can be known. deferred: it stands inside a function."""

    file: Path
    line: int
    name: str
    deferred: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.name}"


def imports(path: Path, package: str) -> Iterator[Import]:
    """Every import in a file: statements at any depth, `import_module("...")` and `__import__("...")`."""
    deferred = set()
    tree = ast.parse(path.read_text(), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            deferred.update(id(inner) for inner in ast.walk(node))
    for node in ast.walk(tree):
        for name in imported_names(node, package):
            yield Import(path, getattr(node, "lineno", 0), name, id(node) in deferred)


def imported_names(node: ast.AST, package: str) -> list[str]:
    """Dotted names that `node` imports; of `from a import b` it is `a.b`, so that sub-packages are seen."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*parents, *([node.module] if node.module else [])])
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
            return [node.args[0].value]
    return []


def imports_of(folder: str) -> list[Import]:
    """Every import of every file under a top-level folder."""
    found: list[Import] = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        inside = path.relative_to(ROOT).parent.parts
        found.extend(imports(path, ".".join(("reflexarc", *inside))))
    return found


def test_every_package_is_in_the_table() -> None:
    folders = set(PROJECT["tool"]["setuptools"]["package-dir"].values())
    assert folders == {*ALLOWED, "reflexarc"}


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_imports_follow_the_table(folder: str) -> None:
    wrong = []
    for found in imports_of(folder):
        parts = found.name.split(".")
        if parts[0] != "reflexarc":
            continue
        target = parts[1] if len(parts) > 1 else "the front door"
        if target != folder and target not in ALLOWED[folder]:
            wrong.append(str(found))
    assert not wrong, f"{folder}/ may import {sorted(ALLOWED[folder])} only: {wrong}"


@pytest.mark.parametrize("folder", sorted({*ALLOWED, "reflexarc"}))
def test_our_packages_are_imported_by_their_full_name(folder: str) -> None:
    bare = set(ALLOWED) - {"datasets"}  # that bare name is Hugging Face's
    wrong = [str(found) for found in imports_of(folder) if found.name.split(".")[0] in bare]
    assert not wrong


@pytest.mark.parametrize("folder", TORCH_FREE)
def test_torch_free_packages_do_not_name_torch(folder: str) -> None:
    """A robot driver that wraps lerobot may import it when it is chosen, so inside a function."""
    wrong = []
    for found in imports_of(folder):
        heavy = found.name.split(".")[0]
        chosen = folder == "robots" and heavy == "lerobot" and found.deferred
        if heavy in HEAVY and not chosen:
            wrong.append(str(found))
    assert not wrong


def test_torch_free_packages_import_without_torch() -> None:
    modules = []
    for folder in TORCH_FREE:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            modules.append(".".join(("reflexarc", *(p for p in parts if p != "__init__"))))
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == []


def test_the_checker_sees_every_form_of_import(tmp_path: Path) -> None:
    """A layering test that overlooks a form of import passes for nothing."""
    source = tmp_path / "probe.py"
    source.write_text(
        "import a.b\n"
        "from c import d\n"
        "from . import e\n"
        "from ..f import g\n"
        "def late():\n"
        "    import h\n"
        "    __import__('i')\n"
        "    importlib.import_module('j.k')\n"
    )
    found = {(each.name, each.deferred) for each in imports(source, "reflexarc.wire")}
    assert found == {
        ("a.b", False),
        ("c.d", False),
        ("reflexarc.wire.e", False),
        ("reflexarc.f.g", False),
        ("h", True),
        ("i", True),
        ("j.k", True),
    }
