"""What the tasks with loose blocks share: adding them, scattering them, their colours and where they are."""

from __future__ import annotations

import mujoco
import numpy as np

from reflexarc.sim.scenes import Shape, add_block, paint, place_block
from reflexarc.sim.tasks.base import BASE_COLORS, F64, Goal, Hand, Task, another, shuffled

MAX_YAW = 0.1
"""Blocks are turned by at most this, rad: a held cube then shows about its own width between the fingers."""


class BlockTask(Task):
    """A task whose things are loose blocks, named `block0`, `block1`, ... with a fixed shape each."""

    shapes: tuple[Shape, ...] = ("cube", "cylinder", "cube", "cylinder", "cube")

    def build(self, spec: mujoco.MjSpec) -> None:
        """Add the blocks."""
        for index, shape in enumerate(self.shapes):
            add_block(spec, f"block{index}", shape)

    def bind(self, model: mujoco.MjModel, hand: Hand) -> None:
        """Resolve bodies and geoms."""
        super().bind(model, hand)
        names = [f"block{index}" for index in range(len(self.shapes))]
        self.bodies = [model.body(name).id for name in names]
        self.geoms = [model.geom(name).id for name in names]
        self.colors: list[str] = []

    def stand(self, data: mujoco.MjData, rng: np.random.Generator, points: F64) -> None:
        """Stand the blocks at the (n, 2) points, turned a little, and colour them anew."""
        for index, (x, y) in enumerate(points):
            yaw = float(rng.uniform(-MAX_YAW, MAX_YAW))
            place_block(self.model, data, f"block{index}", float(x), float(y), yaw)
        self.colors = shuffled(rng, BASE_COLORS, len(self.shapes))
        for geom, color in zip(self.geoms, self.colors, strict=True):
            paint(self.model, [geom], color)

    def position(self, data: mujoco.MjData, index: int) -> F64:
        """(3,) m: the centre of a block, a copy."""
        return np.array(data.xpos[self.bodies[index]])

    def free(self, data: mujoco.MjData, index: int) -> bool:
        """Whether the arm does not touch the block."""
        return not self.hand.touches(data, self.geoms[index])

    def gripped(self, data: mujoco.MjData, index: int) -> bool:
        """Whether the fingers touch the block from two sides."""
        return self.hand.grips(data, self.geoms[index])

    def naming(self, target: int) -> Goal:
        """The goal that names this block and nothing else."""
        return Goal(target, -1, {"color": self.colors[target], "shape": self.shapes[target]})

    def other(self, goal: Goal, rng: np.random.Generator) -> Goal:
        """Another block."""
        return self.naming(another(rng, len(self.shapes), goal.target))
