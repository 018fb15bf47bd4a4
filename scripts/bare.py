"""Copy what `benchmarks/inference.py` needs into one folder, for a machine that has only torch and transformers.

    .venv/bin/python scripts/bare.py .bare
    (there)  PYTHONPATH=.bare python .bare/benchmarks/inference.py --shape openvla pi0 --device cuda --runs 200

A borrowed GPU often has neither a package index nor the rest of the lock. Copied are our sources and the few packages
that they import besides torch, transformers and numpy, built for this Python and processor. lerobot is too
large to go along (0.7 GB with what it needs): its π0 is compared with where it is installed.
"""

from __future__ import annotations

import argparse
import ast
import importlib.metadata as metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

THERE = {"torch", "transformers", "numpy"}
"""What the other machine has. Smaller things that these may bring, and may not, go along."""

PROBE = """
import json, sys
sys.modules["lerobot"] = None
sys.path.insert(0, "benchmarks")
import inference
print(json.dumps([each.__file__ for name, each in sys.modules.items() if name.split(".")[0] in {ours}]))
"""
OURS = ("reflexarc", "inference", "inference_openvla", "inference_own", "inference_pi0", "inference_rates")


def main(root: Path, target: Path) -> None:
    """Make `target` anew and say what is in it."""
    packages = needed(root)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    folders = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    for package, folder in folders.items():
        place = target.joinpath(*package.split("."))
        for source in sorted((root / folder).rglob("*.py")):
            copy = place / source.relative_to(root / folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
    shutil.copytree(root / "benchmarks", target / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    for name in packages:
        copy_package(name, target)
    size = sum(each.stat().st_size for each in target.rglob("*") if each.is_file()) / 2**20
    python = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    print(f"{target}: reflexarc, {', '.join(packages)}; {size:.0f} MiB, {python}")


def needed(root: Path) -> list[str]:
    """Distributions that our modules import, and what these require, beyond what is there."""
    code = PROBE.format(ours=set(OURS))
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    files = [Path(each) for each in json.loads(done.stdout.splitlines()[-1]) if each]
    names = {name for file in files for name in imported(file)}
    owners = metadata.packages_distributions()
    direct = {canonical(owner) for name in names - {"lerobot", "reflexarc"} for owner in owners.get(name, ())}
    return sorted(closure(direct - THERE) - THERE)


def imported(file: Path) -> set[str]:
    """Top-level names that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {each.name.split(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def closure(names: set[str]) -> set[str]:
    """These distributions and all that they require, without extras."""
    found: set[str] = set()
    waiting = [canonical(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # required under a condition that does not hold here
        found.add(name)
        plain = (each for each in required if "extra ==" not in each)
        waiting += [canonical(re.split(r"[^\w.-]", each, maxsplit=1)[0]) for each in plain]
    return found


def canonical(name: str) -> str:
    """A distribution's name as indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def copy_package(name: str, target: Path) -> None:
    """The files of an installed distribution, without its tests and compiled caches."""
    for file in metadata.files(name) or []:
        source = Path(str(file.locate()))
        skipped = {"tests", "test", "__pycache__"} & set(file.parts) or ".." in file.parts
        if source.is_file() and not skipped:
            copy = target / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    main(Path(__file__).parents[1], parser.parse_args().folder)
