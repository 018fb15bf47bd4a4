"""A few demonstrations by the scripted expert, recorded through controller and safety as `reflexarc collect` does."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from reflexarc.collect import CollectJob, collect_batch
from reflexarc.setup import load_setup

_logs: dict[str, list[Path]] = {}
"""Those recorded in this run of the tests, by task; each is recorded once."""


def record_demonstrations(folder: Path, tasks: tuple[str, ...] = ("lift", "push"), episodes: int = 2) -> Path:
    """`episodes` undisturbed episodes of each task below `folder`, which is returned."""
    for task in tasks:
        (folder / task).mkdir(parents=True)
        for log in _recorded(task, episodes):
            shutil.copy(log, folder / task / log.name)
    return folder


def _recorded(task: str, episodes: int) -> list[Path]:
    logs = _logs.setdefault(task, [])
    if len(logs) < episodes:
        setup = load_setup(overrides=("controller.execute_steps=1",))
        job = CollectJob(task, 7, len(logs), episodes - len(logs), _kept(), setup, "perturb", 0.0)
        logs += [_kept() / task / f"{done.seed:09d}.mcap" for done in collect_batch(job)]
    return logs[:episodes]


@functools.cache
def _kept() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="demonstrations-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
