"""A few demonstrations by the scripted expert, recorded through controller and safety as `reflexarc collect` does."""

from __future__ import annotations

from pathlib import Path

from reflexarc.collect import CollectJob, collect_batch
from reflexarc.setup import load_setup


def record_demonstrations(folder: Path, tasks: tuple[str, ...] = ("lift", "push"), episodes: int = 2) -> Path:
    """`episodes` undisturbed episodes of each task, in this process; returns the folder."""
    setup = load_setup(overrides=("controller.execute_steps=1",))
    for task in tasks:
        collect_batch(CollectJob(task, 7, 0, episodes, folder, setup, "perturb", 0.0))
    return folder
