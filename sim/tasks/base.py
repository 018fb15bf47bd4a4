"""What a task is: a fixed scene, a way to lay it out by seed, words that ask for one thing in it, a judge.

A task knows nothing of controllers or policies. It reads and writes `MjData`, the simulator's privileged state.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray

from reflexarc.sim.scenes import COLORS

F64 = NDArray[np.float64]

BASE_COLORS = ("red", "green", "blue", "yellow", "purple")
"""Colours of the things that are acted on; bins have two of their own."""

HOLD_S = 0.5
"""A task's condition counts as success once it has held this long, s."""


@dataclasses.dataclass(frozen=True, slots=True)
class Goal:
    """What is asked for: `target` and `destination` are indices into the task's things (-1: none).

    words: what the placeholders of an instruction template stand for.
    """

    target: int
    destination: int
    words: dict[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Hand:
    """Where a model's TCP is, and which of its geoms belong to the arm: ids for the judge.

    geoms: the arm's geoms, each with its body.
    """

    site: int
    geoms: Mapping[int, int]

    def position(self, data: mujoco.MjData) -> F64:
        """(3,) m, a copy."""
        return np.array(data.site_xpos[self.site])

    def touching(self, data: mujoco.MjData, geom: int) -> set[int]:
        """The bodies of the arm that are in contact with this geom."""
        others = [b if a == geom else a for a, b in data.contact.geom.tolist() if geom in (a, b)]
        return {self.geoms[other] for other in others if other in self.geoms}

    def touches(self, data: mujoco.MjData, geom: int) -> bool:
        """Whether any part of the arm is in contact with this geom."""
        return bool(self.touching(data, geom))

    def grips(self, data: mujoco.MjData, geom: int) -> bool:
        """Whether two parts of the arm, its fingers, are in contact with this geom."""
        return len(self.touching(data, geom)) >= 2


class Task(ABC):
    """One task of the suite `tabletop`. An instance belongs to one compiled model.

    values: the words that each placeholder of the templates can be.
    """

    name: ClassVar[str]
    time_limit_s: ClassVar[float]
    templates_train: ClassVar[tuple[str, ...]]
    templates_held_out: ClassVar[tuple[str, ...]]
    values: ClassVar[dict[str, tuple[str, ...]]]

    @abstractmethod
    def build(self, spec: mujoco.MjSpec) -> None:
        """Add this task's things to a spec that has an arm and a table."""

    def bind(self, model: mujoco.MjModel, hand: Hand) -> None:
        """Take note of the compiled model; called once, after `build`."""
        self.model = model
        self.hand = hand

    @abstractmethod
    def arrange(self, data: mujoco.MjData, rng: np.random.Generator) -> Goal:
        """Lay out a freshly reset scene and say what is asked for."""

    @abstractmethod
    def satisfied(self, data: mujoco.MjData, goal: Goal) -> bool:
        """Whether the asked-for condition is true now; it must stay so for HOLD_S to be a success."""

    @abstractmethod
    def focus(self, data: mujoco.MjData, goal: Goal) -> F64:
        """(2, 3) m, base frame: what to act on, and where it should go (the same twice if nowhere)."""

    @abstractmethod
    def other(self, goal: Goal, rng: np.random.Generator) -> Goal:
        """A goal that names another thing of the same scene."""


def instructions(task: type[Task], templates: tuple[str, ...]) -> list[str]:
    """Every instruction that these templates can make with the task's words."""
    found = []
    for template in templates:
        partial = [template]
        for key, words in task.values.items():
            slot = "{" + key + "}"
            partial = [
                text.replace(slot, word) for text in partial for word in (words if slot in text else ("",))
            ]
        found.extend(partial)
    return list(dict.fromkeys(found))


def shuffled(rng: np.random.Generator, colors: tuple[str, ...], count: int) -> list[str]:
    """`count` different colours in random order."""
    return [colors[i] for i in rng.permutation(len(colors))[:count]]


def another(rng: np.random.Generator, count: int, index: int) -> int:
    """A random index below `count` that is not `index`."""
    return int((index + rng.integers(1, count)) % count)


assert set(BASE_COLORS) <= set(COLORS)
