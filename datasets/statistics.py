"""How the numbers of a session are spread: exact statistics of every dimension of its labels and states.

Labels and rows are those of the one label function, as training and export take them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.action import ActionSpec
from reflexarc.configs.errors import LogError
from reflexarc.datasets.alike import check_alike
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.sampling import Samples, sample_episode
from reflexarc.datasets.summary import EpisodeSummary, Progress, silent, survey_whole

QUANTILES = {"q01": 0.01, "q50": 0.5, "q99": 0.99}


def statistics(values: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Of each column of `values` (N, D): quantiles, bounds, mean and standard deviation, and how many rows there are.

    Nothing is estimated: quantiles are those of all rows, interpolated between neighbours (NumPy's default, method 7 of
    Hyndman and Fan, The American Statistician 50(4), 1996).
    """
    values = values.astype(np.float64)
    rows = dict(zip(QUANTILES, np.quantile(values, [*QUANTILES.values()], axis=0), strict=True))
    rows |= {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    return {name: row.tolist() for name, row in rows.items()} | {"count": len(values)}


def session_statistics(
    folder: Path,
    spec: ActionSpec,
    cameras: Sequence[str] = (),
    *,
    all_episodes: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """JSON-ready statistics of a session's successful whole episodes (all_episodes: of every whole one).

    spec: its step is the one from row to row; labels are its first actions. cameras: whose pictures a row needs;
    default those that all episodes have. `labels` and `states` map each dimension to its unit and statistics, `tasks`
    each task to its number of episodes, rows and labels. Raises LogError if there is no such episode, one cannot be
    read or sampled, or they are not of one robot.
    """
    whole = [each for each in survey_whole(folder, progress) if not each.is_cut]
    episodes = [each for each in whole if all_episodes or each.success]
    if not episodes:
        which = "whole" if all_episodes else "successful"
        raise LogError(f"{folder}: no {which} episode to tell statistics of")
    check_alike(episodes)
    cameras = tuple(cameras) or _common_cameras(folder, episodes)
    states, labels = [], []
    tasks: dict[str, dict[str, int]] = {}
    by_log = {each.log: each for each in episodes}
    for log in progress(list(by_log), "sampling"):
        samples = sample_episode(
            EpisodeReader(log), spec.model_copy(update={"horizon": 1}), cameras, pictures=False
        )
        states.append(_states(samples)[: samples.rows_to_learn])
        labels.append(samples.actions[samples.mask[:, 0], 0])
        task = tasks.setdefault(by_log[log].task, {"episodes": 0, "rows": 0, "labels": 0})
        for name, count in (("episodes", 1), ("rows", len(states[-1])), ("labels", len(labels[-1]))):
            task[name] += count
    if not sum(map(len, labels)):
        raise LogError(f"{folder}: none of its {len(episodes)} episodes holds a label")
    return {
        "episodes": len(episodes),
        "step_s": spec.step_s,
        "cameras": list(cameras),
        "tasks": dict(sorted(tasks.items())),
        "labels": _by_dimension({dim.name: dim.unit for dim in spec.dims}, np.concatenate(labels)),
        "states": _by_dimension(_state_units(episodes[0].joints or 0), np.concatenate(states)),
    }


def _common_cameras(folder: Path, episodes: Sequence[EpisodeSummary]) -> tuple[str, ...]:
    common = set(episodes[0].cameras).intersection(*(each.cameras for each in episodes))
    if not common:
        raise LogError(f"{folder}: its episodes have no camera in common; rows stand at a camera's pictures")
    return tuple(sorted(common))


def _states(samples: Samples) -> NDArray[np.float64]:
    """(T, n + 10): joints, opening, place of the TCP, wrench."""
    return np.concatenate(
        [samples.joint_position, samples.gripper[:, None], samples.pose_base_tcp[:, :3], samples.wrench],
        axis=1,
    )


def _state_units(joints: int) -> dict[str, str]:
    """Names and units of the columns of `_states`."""
    return (
        {f"joint{number + 1}": "rad" for number in range(joints)}
        | {"gripper": "opening", "x": "m", "y": "m", "z": "m"}
        | {"fx": "N", "fy": "N", "fz": "N", "tx": "N·m", "ty": "N·m", "tz": "N·m"}
    )


def _by_dimension(units: dict[str, str], values: NDArray[np.float64]) -> dict[str, dict[str, Any]]:
    columns = statistics(values)
    count = columns.pop("count")
    return {
        name: {"unit": unit} | {figure: row[index] for figure, row in columns.items()} | {"count": count}
        for index, (name, unit) in enumerate(units.items())
    }
