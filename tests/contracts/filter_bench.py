"""Runs a `SafetyFilter` tick by tick against an arm that follows perfectly, and keeps what it commanded."""

from __future__ import annotations

import copy

import msgspec
import numpy as np

from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety import SafetyFilter
from reflexarc.wire.messages import (
    F64,
    HostAction,
    Measured,
    SafetyReport,
    SafetyState,
    Setpoint,
    SetpointSource,
)

LOST: SafetyState = "protective_stop"


class FilterBench:
    """One filter, its memory, a clock that advances by one tick at a time, and the stream of commands."""

    def __init__(
        self,
        robot: RobotConfig,
        safety: SafetyConfig,
        start: F64 | None = None,
        filter_: SafetyFilter | None = None,
    ) -> None:
        """filter_: one of another bench, of the same configs: it has no history."""
        self.robot = robot
        self.filter = filter_ or SafetyFilter(robot, safety, "virtual")
        self.now_ns = 0
        self.setpoint_seq = 0
        self.wrench = np.zeros(6)
        self.reading_age_ns = 0
        position = np.array(robot.home if start is None else start, dtype=np.float64)
        self.measured = self.reading(position, 1.0)
        self.memory = self.filter.start(self.measured, 0)
        self.positions = [position]
        self.grippers = [self.memory.gripper]
        self.reports: list[SafetyReport] = []

    def branch(self) -> FilterBench:
        """Another bench that goes on from here; the filter is pure, so the two share it."""
        other = copy.copy(self)
        other.wrench, other.positions, other.grippers, other.reports = self.wrench.copy(), [], [], []
        return other

    @property
    def state(self) -> SafetyState:
        """State of the machine."""
        return self.memory.state

    @property
    def stream(self) -> F64:
        """(T, n) rad, all commanded positions from the start on."""
        return np.array(self.positions)

    @property
    def rules(self) -> set[str]:
        """Every rule that has limited something."""
        return {item.rule for report in self.reports for item in report.interventions}

    def reading(self, position: F64, gripper: float) -> Measured:
        """What a perfect arm would measure."""
        return Measured(
            t_ns=self.now_ns - self.reading_age_ns,
            joint_position=np.array(position),
            joint_velocity=np.zeros(len(position)),
            joint_effort=np.zeros(len(position)),
            wrench_tcp=self.wrench.copy(),
            gripper=gripper,
        )

    def request(self, action: HostAction) -> bool:
        """Ask, and say whether it was granted."""
        self.memory, granted, text = self.filter.request(self.memory, action, self.now_ns)
        assert text
        return granted

    def setpoint(
        self,
        position: F64 | None = None,
        velocity: F64 | None = None,
        *,
        due_ns: int | None = None,
        gripper: float = 0.5,
        source: SetpointSource = "expert",
        chunk_age_ns: int = 0,
    ) -> Setpoint:
        """The next setpoint of a well-behaved sender, made now; by default: stay where you are."""
        self.setpoint_seq += 1
        here = self.memory.position.copy()
        return Setpoint(
            t_ns=self.now_ns,
            clock="virtual",
            seq=self.setpoint_seq,
            t_due_ns=self.now_ns if due_ns is None else due_ns,
            joint_position=here if position is None else np.asarray(position),
            joint_velocity=np.zeros_like(here) if velocity is None else np.asarray(velocity),
            gripper=gripper,
            source=source,
            chunk_age_ns=chunk_age_ns,
        )

    def tick(self, setpoint: Setpoint | None = None) -> SafetyReport:
        """One tick of the host; the arm then stands where it was told."""
        self.measured = self.reading(self.memory.position, self.memory.gripper)
        command, self.memory, report = self.filter.filter(self.memory, self.measured, setpoint, self.now_ns)
        self.positions.append(command.joint_position.copy())
        self.grippers.append(command.gripper)
        self.reports.append(report)
        self.now_ns += self.robot.tick_ns
        return report

    def move(self, ticks: int, speed: float = 0.3) -> None:
        """Be led by a legal stream away from home and back, for `ticks` ticks."""
        base = self.memory.position.copy()
        for tick in range(ticks):
            phase = 2 * np.pi * tick / 200
            position = base + 0.05 * speed * (1 - np.cos(phase))
            velocity = np.full_like(base, 0.05 * speed * 2 * np.pi * np.sin(phase) * self.robot.tick_hz / 200)
            self.tick(self.setpoint(position, velocity))

    def idle(self, seconds: float, setpoint: Setpoint | None = None) -> None:
        """Let time pass while the same setpoint, or none, is the newest."""
        for _ in range(round(seconds * self.robot.tick_hz)):
            self.tick(setpoint)

    def stamped(self, setpoint: Setpoint, **changes: object) -> Setpoint:
        """A copy of `setpoint` with some fields changed."""
        return msgspec.structs.replace(setpoint, **changes)
