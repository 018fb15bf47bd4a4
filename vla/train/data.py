"""The rows of many episodes as arrays, the split by episode, and the drawing of batches balanced over tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.action import ActionSpec
from reflexarc.configs.errors import PolicyError, unknown
from reflexarc.configs.policy import ModelConfig
from reflexarc.datasets.cache import TrainingCache
from reflexarc.vla.preprocess import proprio_features
from reflexarc.wire.messages import F64

Rows = NDArray[np.integer[Any]]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """N rows. Raw units, base frame.

    images: from a camera's name and rows (B,) to (B, S, S, 3) uint8. proprio: (N, P). tcp: (N, 3) m commanded.
    gripper_commanded: (N,) opening. actions: (N, H, D). mask: (N, H) bool. focus: (N, 2, 3) m, NaN where unknown.
    episode: (N,) index into instructions and task. task: (E,) index into tasks.
    """

    spec: ActionSpec
    images: Callable[[str, Rows], NDArray[np.uint8]]
    proprio: F64
    tcp: F64
    gripper_commanded: F64
    actions: F64
    mask: NDArray[np.bool_]
    focus: F64
    episode: NDArray[np.int64]
    instructions: tuple[str, ...]
    task: NDArray[np.int64]
    tasks: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.mask)

    def split(self, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows to train on and rows held out: `share` of the episodes of each task, at least one where share > 0."""
        held_out = np.zeros(len(self.task), dtype=bool)
        generator = np.random.default_rng([0x5B1, seed])
        for index in range(len(self.tasks)):
            episodes = generator.permutation(np.flatnonzero(self.task == index))
            count = round(share * len(episodes)) or int(share > 0 and len(episodes) > 1)
            held_out[episodes[:count]] = True
        row_held_out = held_out[self.episode]
        return np.flatnonzero(~row_held_out), np.flatnonzero(row_held_out)


def from_cache(cache: TrainingCache, config: ModelConfig) -> TrainingData:
    """The rows of a cache with what `config` feels; raises PolicyError on a missing camera or another image size."""
    for camera in config.cameras:
        if camera not in cache.cameras:
            raise PolicyError(f"{cache.folder}: {unknown('camera', camera, cache.cameras)}")
        size = cache.images(camera, np.zeros(1, dtype=np.int64)).shape[1:3]
        if size != (config.image_size, config.image_size):
            raise PolicyError(
                f"{cache.folder}: images of camera {camera} are {size[0]}x{size[1]}; "
                f"the model needs {config.image_size}x{config.image_size}"
            )
    labels = {name: values.astype(np.float64) for name, values in cache.labels.items()}
    tasks = tuple(sorted({episode.task for episode in cache.episodes}))
    return TrainingData(
        spec=cache.spec,
        images=cache.images,
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
        mask=cache.mask,
        focus=labels["focus"],
        episode=cache.episode.astype(np.int64),
        instructions=tuple(cache.instructions),
        task=np.array([tasks.index(episode.task) for episode in cache.episodes], dtype=np.int64),
        tasks=tasks,
    )


class Draw:
    """Draws rows: first a task by weight, then the next row of a shuffled pass over that task's rows."""

    def __init__(self, data: TrainingData, rows: Rows, weights: dict[str, float], seed: int) -> None:
        """Raises PolicyError if a weight names an unknown task, or none of the tasks can be drawn."""
        for name, weight in weights.items():
            if name not in data.tasks:
                raise PolicyError(f"train.weights: {unknown('task', name, data.tasks)}")
            if weight < 0:
                raise PolicyError(f"train.weights: {name} has the negative weight {weight}")
        of_task = data.task[data.episode[rows]]
        self._rows = [np.asarray(rows)[of_task == index] for index in range(len(data.tasks))]
        share = [
            weights.get(name, 1.0) if len(mine) else 0.0
            for name, mine in zip(data.tasks, self._rows, strict=True)
        ]
        if not sum(share) > 0:
            raise PolicyError("there is no row to train on: no episode, or every task's weight is 0")
        self._share = np.array(share) / sum(share)
        self._seed = seed
        self._passes = [0] * len(data.tasks)
        self._places = [0] * len(data.tasks)
        self._order: list[NDArray[np.int64] | None] = [None] * len(data.tasks)

    def batch(self, size: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """The next `size` rows."""
        counts = generator.multinomial(size, self._share)
        parts = [self._next(index, int(count)) for index, count in enumerate(counts) if count]
        return np.concatenate(parts)

    def state(self) -> dict[str, list[int]]:
        """Where it stands, for an exact continuation."""
        return {"passes": list(self._passes), "places": list(self._places)}

    def restore(self, state: dict[str, list[int]]) -> None:
        """Go on from `state`."""
        self._passes, self._places = list(state["passes"]), list(state["places"])
        self._order = [None] * len(self._rows)

    def _next(self, index: int, count: int) -> NDArray[np.int64]:
        taken: list[NDArray[np.int64]] = []
        while count:
            order = self._order[index]
            if order is None:
                shuffle = np.random.default_rng([self._seed, index, self._passes[index]])
                order = self._order[index] = shuffle.permutation(self._rows[index])
            here = order[self._places[index] : self._places[index] + count]
            taken.append(here)
            count -= len(here)
            self._places[index] += len(here)
            if self._places[index] == len(order):
                self._passes[index] += 1
                self._places[index], self._order[index] = 0, None
        return np.concatenate(taken)
