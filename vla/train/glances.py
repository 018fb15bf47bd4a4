"""Glances as training data, alone or beside demonstrations: each is an episode of one row."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.action import ActionSpec
from reflexarc.configs.errors import PolicyError
from reflexarc.configs.policy import ModelConfig
from reflexarc.vla.preprocess import proprio_features
from reflexarc.vla.train.data import Rows, TrainingData

CHOICE = {
    "gripper",
    "gripper_commanded",
    "pose_base_tcp",
    "pose_base_tcp_commanded",
    "wrench",
    "focus",
    "actions",
}


def from_glances(folder: Path, spec: ActionSpec, config: ModelConfig) -> TrainingData:
    """All shards below `folder`; raises PolicyError if there is none or its actions are not of `spec`'s horizon."""
    shards = sorted(path.parent for path in folder.glob("*/words.json"))
    if not shards:
        raise PolicyError(f"{folder}: no shard of glances below this folder")
    words = [json.loads((shard / "words.json").read_text()) for shard in shards]
    labels = {
        name: np.concatenate([np.load(shard / f"{name}.npy") for shard in shards]).astype(np.float64)
        for name in CHOICE
    }
    if labels["actions"].shape[1:] != (spec.horizon, spec.size):
        raise PolicyError(
            f"{folder}: glances have actions of {labels['actions'].shape[1:]}; "
            f"the policy needs {(spec.horizon, spec.size)}"
        )
    maps = {
        camera: [np.load(shard / f"images-{camera}.npy", mmap_mode="r") for shard in shards]
        for camera in config.cameras
    }
    starts = np.cumsum([0] + [len(part) for part in maps[config.cameras[0]]])
    tasks = tuple(sorted({entry["task"] for entry in words}))
    count = int(starts[-1])

    def images(camera: str, rows: Rows) -> NDArray[np.uint8]:
        parts = maps[camera]
        which = np.searchsorted(starts, rows, side="right") - 1
        return np.stack([parts[w][r - starts[w]] for w, r in zip(which, rows, strict=True)])

    return TrainingData(
        spec=spec,
        images=images,
        proprio=proprio_features(
            config.proprio,
            pose=labels["pose_base_tcp"],
            pose_commanded=labels["pose_base_tcp_commanded"],
            gripper=labels["gripper"],
            gripper_commanded=labels["gripper_commanded"],
            wrench=labels["wrench"],
        ),
        tcp=labels["pose_base_tcp_commanded"][:, :3],
        gripper_commanded=labels["gripper_commanded"],
        actions=labels["actions"],
        mask=np.concatenate([np.load(shard / "mask.npy") for shard in shards]),
        focus=labels["focus"],
        episode=np.arange(count, dtype=np.int64),
        instructions=tuple(text for entry in words for text in entry["instructions"]),
        task=np.array(
            [tasks.index(entry["task"]) for entry in words for _ in entry["instructions"]], dtype=np.int64
        ),
        tasks=tasks,
    )


def together(first: TrainingData, second: TrainingData) -> TrainingData:
    """The rows of both, those of `first` in front; raises PolicyError if their action spaces differ."""
    if first.spec != second.spec:
        raise PolicyError(f"data of spec {first.spec.id} and of spec {second.spec.id} cannot be mixed")
    border = len(first)
    tasks = tuple(sorted({*first.tasks, *second.tasks}))

    def images(camera: str, rows: Rows) -> NDArray[np.uint8]:
        of_first = rows < border
        out: NDArray[np.uint8] | None = None
        for part, mine, shift in ((first, of_first, 0), (second, ~of_first, border)):
            if mine.any():
                got = part.images(camera, rows[mine] - shift)
                if out is None:
                    out = np.empty((len(rows), *got.shape[1:]), dtype=np.uint8)
                out[mine] = got
        assert out is not None
        return out

    def renamed(data: TrainingData) -> NDArray[np.int64]:
        return np.array([tasks.index(name) for name in data.tasks], dtype=np.int64)[data.task]

    arrays = ("proprio", "tcp", "gripper_commanded", "actions", "mask", "focus")
    return dataclasses.replace(
        first,
        images=images,
        episode=np.concatenate([first.episode, second.episode + len(first.task)]),
        instructions=first.instructions + second.instructions,
        task=np.concatenate([renamed(first), renamed(second)]),
        tasks=tasks,
        **{name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in arrays},
    )
