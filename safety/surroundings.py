"""Which clearances a robot has under a safety configuration: the rows of the table that `clearance` evaluates."""

from __future__ import annotations

import dataclasses

import numpy as np

from reflexarc.configs.errors import SafetyError
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import Box, SafetyConfig
from reflexarc.safety.clearance import (
    BOX,
    JOINT,
    PART_WALL,
    SELF,
    SINGULAR,
    TCP_WALL,
    Clearances,
    clearances,
    scratch,
)
from reflexarc.safety.kinematics import Kinematics
from reflexarc.safety.limits import RELATIVE_MARGIN
from reflexarc.wire.messages import F64

# Parts fewer joints apart than this cannot be moved into each other, or are as near as the arm is built.
APART = 3
# The arm is not slowed down before a clearance of so little is left, m or rad.
NOT_SLOW = 1e-12
# A condition number needs six rows of full rank.
FULL_RANK = 6


@dataclasses.dataclass(frozen=True, slots=True)
class Surroundings:
    """table: for the kernels. rules, fields: (K,) what a report calls each row.

    slow: (K,) clearance below which the arm approaches more slowly (for a singularity: below which that must be
    looked at); as good as 0 where it does not. singularity_slow: condition number.
    """

    table: Clearances
    rules: tuple[str, ...]
    fields: tuple[str, ...]
    slow: F64
    singularity_slow: float

    @staticmethod
    def of(
        robot: RobotConfig, safety: SafetyConfig, kinematics: Kinematics, lower: F64, upper: F64
    ) -> Surroundings:
        """lower, upper: (n,) rad. Raises SafetyError if the arm, at home, is nearer to itself than `distance_stop`."""
        rows = _Rows()
        body = kinematics.body
        moving = [c for c in range(len(body.names)) if body.capsules.link[c] > 0]
        for joint, name in enumerate(robot.joint_names):
            for side in range(2):
                rows.add(JOINT, joint, side, "joint_position", f"{name} {_SIDES[side]}")
        for wall in range(6):
            rows.add(TCP_WALL, wall // 2, wall % 2, "workspace", f"{'xyz'[wall // 2]} {_SIDES[wall % 2]}")
        for part in moving:
            for wall in range(6):
                field = f"{body.names[part]} {'xyz'[wall // 2]} {_SIDES[wall % 2]}"
                rows.add(PART_WALL, part, wall, "arm_box", field)
        ramp = safety.distance_slow - safety.distance_stop
        for number, box in enumerate(safety.keep_out):
            for part in moving:
                rows.add(BOX, part, number, "keep_out", f"{body.names[part]} - {box.name}")
        for number, box in enumerate(safety.obstacles, len(safety.keep_out)):
            for part in moving:
                if not body.working[part]:
                    field = f"{body.names[part]} - {box.name}"
                    rows.add(BOX, part, number, "distance", field, safety.distance_stop, ramp)
        for first in range(len(body.names)):
            for second in range(first):
                if abs(int(body.capsules.link[first]) - int(body.capsules.link[second])) >= APART:
                    field = f"{body.names[second]} - {body.names[first]}"
                    rows.add(SELF, first, second, "self_distance", field, safety.distance_stop, ramp)
        if len(robot.joints) >= FULL_RANK:
            # σ_min - σ_max/stop where the condition number is `slow`, for the largest σ_max there can be.
            norm = float(np.sqrt((kinematics.reach**2 + 1).sum()))
            slow = norm * (1 / safety.singularity_slow - 1 / safety.singularity_stop)
            rows.add(SINGULAR, 0, 0, "singularity", "condition", safety.singularity_stop, slow)
        table = rows.table(
            np.array([lower, upper]),
            _inset(safety.workspace),
            _inset(safety.arm_box),
            [_outset(box) for box in (*safety.keep_out, *safety.obstacles)],
            _paces(kinematics.reach),
        )
        names = tuple(rows.rules), tuple(rows.fields)
        found = Surroundings(table, *names, np.array(rows.slow), safety.singularity_slow)
        found._check_home(robot, kinematics)
        return found

    def _check_home(self, robot: RobotConfig, kinematics: Kinematics) -> None:
        values = np.empty(len(self.rules))
        at = scratch(len(robot.joints), len(kinematics.body.names))
        home = np.array(robot.home, dtype=np.float64)
        clearances(self.table, kinematics.chain, kinematics.body.capsules, home, at, values)
        for row in np.flatnonzero((values < 0) & (self.table.kind == SELF)):
            raise SafetyError(
                f"robot {robot.name} at home: {self.fields[row]} are {values[row] + self.table.keep[row]:.3f} m apart, "
                f"nearer than distance_stop {self.table.keep[row]} m"
            )


_SIDES = ("lower", "upper")


def _paces(reach: F64) -> F64:
    """(6,) by kind: how far the arm may travel, Σ reach_j·|dq_j|, at least, for each unit of clearance.

    No point moves further than the arm travels, and two parts approach by at most twice that. A joint's own angle may
    change by travel/reach. By Weyl's inequality no singular value changes by more than the norm of the Jacobian's
    change; for hinges i and j that is bounded by |∂²p/∂q_i∂q_j| ≤ the reach of the outer one and, for j before i, by
    |∂z_i/∂q_j| ≤ 1. (The row's σ_min - σ_max/keep then changes by 1 + 1/keep times as much.)
    """
    n = len(reach)
    per_rad = np.sqrt((np.minimum.outer(reach, reach) ** 2).sum(axis=0) + np.arange(n)[::-1])
    paces = np.ones(SINGULAR + 1)
    paces[JOINT] = float(reach.min())
    paces[SELF] = 0.5
    paces[SINGULAR] = 1 / float(np.max(per_rad / reach))
    return paces


class _Rows:
    def __init__(self) -> None:
        self.kinds: list[tuple[int, int, int]] = []
        self.rules: list[str] = []
        self.fields: list[str] = []
        self.keep: list[float] = []
        self.slow: list[float] = []

    def add(
        self, kind: int, a: int, b: int, rule: str, field: str, keep: float = 0.0, slow: float = NOT_SLOW
    ) -> None:
        self.kinds.append((kind, a, b))
        self.rules.append(rule)
        self.fields.append(field)
        self.keep.append(keep)
        self.slow.append(slow)

    def table(self, bound: F64, tcp_box: F64, arm_box: F64, boxes: list[F64], paces: F64) -> Clearances:
        kinds = np.array(self.kinds, dtype=np.int64)
        keep = np.array(self.keep)
        pace = paces[kinds[:, 0]]
        pace[kinds[:, 0] == SINGULAR] /= 1 + 1 / keep[kinds[:, 0] == SINGULAR]
        return Clearances(
            kind=kinds[:, 0].copy(),
            a=kinds[:, 1].copy(),
            b=kinds[:, 2].copy(),
            keep=keep,
            pace=pace,
            start=np.searchsorted(kinds[:, 0], np.arange(SINGULAR + 2)),
            bound=bound,
            tcp_box=tcp_box,
            arm_box=arm_box,
            boxes=np.array(boxes).reshape(-1, 2, 3),
        )


def _inset(box: Box) -> F64:
    """(2, 3) m, smaller than the box by the margin of rounding."""
    corners = np.array([box.lower, box.upper], dtype=np.float64)
    inset = (corners[1] - corners[0]) * RELATIVE_MARGIN
    return np.array([corners[0] + inset, corners[1] - inset])


def _outset(box: Box) -> F64:
    corners = np.array([box.lower, box.upper], dtype=np.float64)
    outset = (corners[1] - corners[0]) * RELATIVE_MARGIN
    return np.array([corners[0] - outset, corners[1] + outset])
