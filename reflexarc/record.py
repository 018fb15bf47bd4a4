"""What is written beside the messages of an episode: which code, which configs, which seed.

A log explains itself: everything needed to repeat or to judge the episode stands in its metadata.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel

from reflexarc import __version__
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig

_PACKAGES = ("mujoco", "numpy", "numba", "daqp", "ruckig", "torch", "transformers")

ROBOT_LIMITS = ("joints", "gripper", "cartesian", "payload", "stop_category")
"""Of `RobotConfig`: what the robot itself adds to the limits of `SafetyConfig`."""


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


def limits_hash(robot: RobotConfig, safety: SafetyConfig) -> str:
    """sha256 of all limits, the robot's own and those of safety, as 64 hexadecimal digits."""
    limits = {
        "robot": robot.model_dump(mode="json", include=set(ROBOT_LIMITS)),
        "safety": safety.model_dump(mode="json"),
    }
    text = json.dumps(limits, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def episode_metadata(
    *,
    task: str,
    seed: int,
    policy: str,
    clock: str,
    robot: RobotConfig,
    safety: SafetyConfig,
    configs: Mapping[str, BaseModel],
) -> str:
    """JSON for `EpisodeStart.metadata`; `safety_hash`, that of all limits, stands in every episode."""
    return json.dumps(
        {
            "task": task,
            "seed": seed,
            "policy": policy,
            "clock": clock,
            "safety_hash": limits_hash(robot, safety),
            "versions": versions(),
            "git_revision": git_revision(),
            "configs": {name: config.model_dump(mode="json") for name, config in configs.items()},
        },
        sort_keys=True,
    )
