"""What is written beside the messages of an episode: which code, which configs, which seed.

A log explains itself: everything needed to repeat or to judge the episode stands in its metadata.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel

from reflexarc import __version__
from reflexarc.configs.load import config_hash
from reflexarc.configs.safety import SafetyConfig

_PACKAGES = ("mujoco", "numpy", "numba", "daqp", "ruckig", "torch", "transformers")


@cache
def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the libraries that decide the result."""
    found = {"reflexarc": __version__, "python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def git_revision() -> str:
    """The commit of the source checkout, `+dirty` if it has changes, or `unknown` for an installed package."""
    root = Path(__file__).resolve().parent.parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + ("+dirty" if changed else "")


def episode_metadata(
    *, task: str, seed: int, policy: str, clock: str, safety: SafetyConfig, configs: Mapping[str, BaseModel]
) -> str:
    """JSON for `EpisodeStart.metadata`; the hash of the limits stands in every episode."""
    return json.dumps(
        {
            "task": task,
            "seed": seed,
            "policy": policy,
            "clock": clock,
            "safety_hash": config_hash(safety),
            "versions": versions(),
            "git_revision": git_revision(),
            "configs": {name: config.model_dump(mode="json") for name, config in configs.items()},
        },
        sort_keys=True,
    )
