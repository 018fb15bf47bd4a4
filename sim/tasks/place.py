"""Place: put the named block into the named bin and let go."""

from __future__ import annotations

from typing import ClassVar

import mujoco
import numpy as np

from reflexarc.sim.scenes import BIN_HALF_WIDTH, BLOCK_HALF, Shape, add_bin, paint, scatter
from reflexarc.sim.tasks.base import BASE_COLORS, F64, Goal, Hand, another, shuffled
from reflexarc.sim.tasks.blocks import BlockTask

BIN_COLORS = ("orange", "cyan")
BIN_Y = 0.23


class Place(BlockTask):
    """Four blocks between two bins; the named block resting in the named bin, the hand off it."""

    name = "place"
    time_limit_s = 15.0
    shapes: tuple[Shape, ...] = ("cube", "cylinder", "cube", "cylinder")
    templates_train = (
        "put the {color} block in the {bin} bin",
        "place the {color} block in the {bin} bin",
        "drop the {color} {shape} into the {bin} bin",
        "move the {color} block to the {bin} bin",
        "pick up the {color} {shape} and put it in the {bin} bin",
        "take the {color} block to the {bin} bin",
    )
    templates_held_out = (
        "put the {color} {shape} into the {bin} bin",
        "pick the {color} block and drop it in the {bin} bin",
    )
    values: ClassVar[dict[str, tuple[str, ...]]] = {
        "color": BASE_COLORS,
        "shape": ("cube", "cylinder"),
        "bin": BIN_COLORS,
    }

    def build(self, spec: mujoco.MjSpec) -> None:
        """Add blocks and bins."""
        super().build(spec)
        for index in range(len(BIN_COLORS)):
            add_bin(spec, f"bin{index}")

    def bind(self, model: mujoco.MjModel, hand: Hand) -> None:
        """Resolve the bins."""
        super().bind(model, hand)
        self.bins = [model.body(f"bin{index}").id for index in range(len(BIN_COLORS))]
        self.bin_colors: list[str] = []

    def arrange(self, data: mujoco.MjData, rng: np.random.Generator) -> Goal:
        """A bin on either side, the blocks between them; ask for one of each."""
        self.stand(data, rng, scatter(rng, len(self.shapes), (0.36, -0.09), (0.64, 0.09), 0.095))
        self.bin_colors = shuffled(rng, BIN_COLORS, len(self.bins))
        for body, color, side in zip(self.bins, self.bin_colors, (1.0, -1.0), strict=True):
            mocap = self.model.body_mocapid[body]
            data.mocap_pos[mocap] = (rng.uniform(0.42, 0.58), side * BIN_Y + rng.uniform(-0.01, 0.01), 0.0)
            first = self.model.body_geomadr[body]
            paint(self.model, range(first, first + self.model.body_geomnum[body]), color)
        return self.into(int(rng.integers(len(self.shapes))), int(rng.integers(len(self.bins))))

    def into(self, target: int, destination: int) -> Goal:
        """The goal that names this block and this bin."""
        words = {**self.naming(target).words, "bin": self.bin_colors[destination]}
        return Goal(target, destination, words)

    def bin_position(self, data: mujoco.MjData, index: int) -> F64:
        """(3,) m: the middle of a bin on the table, a copy."""
        return np.array(data.mocap_pos[self.model.body_mocapid[self.bins[index]]])

    def inside(self, data: mujoco.MjData, target: int, destination: int) -> bool:
        """Whether the block lies within the bin's walls."""
        offset = self.position(data, target) - self.bin_position(data, destination)
        within = np.abs(offset[:2]) < BIN_HALF_WIDTH - 0.8 * BLOCK_HALF
        return bool(within.all() and offset[2] < 2 * BLOCK_HALF)

    def satisfied(self, data: mujoco.MjData, goal: Goal) -> bool:
        """The block is in the bin and the arm does not touch it."""
        return self.inside(data, goal.target, goal.destination) and self.free(data, goal.target)

    def focus(self, data: mujoco.MjData, goal: Goal) -> F64:
        """The block and the bin."""
        return np.stack([self.position(data, goal.target), self.bin_position(data, goal.destination)])

    def other(self, goal: Goal, rng: np.random.Generator) -> Goal:
        """Another block, the same bin."""
        return self.into(another(rng, len(self.shapes), goal.target), goal.destination)
