"""An arm without a scene, for tests and for trying out the host: it does at once what it is told.

Told a position, it is there; told a velocity, it moves by that; told torque, it moves as its rigid links would.

It is never chosen on a user's behalf: a driver that fails to open stays an error.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reflexarc.configs.errors import RobotError
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.watch import Payload
from reflexarc.safety.dynamics import Dynamics
from reflexarc.wire.messages import F64, JointCommand, Measured

STEP_S = 0.001
"""Of the integration of torque."""


class FakeRobot:
    """A `Robot` that obeys perfectly. `now_ns` is the clock that stamps its readings."""

    def __init__(self, config: RobotConfig, now_ns: Callable[[], int], start: F64 | None = None) -> None:
        """start: (n,) rad, where the arm stands at first; the robot's home if None."""
        self._config = config
        self._now_ns = now_ns
        self._position = np.array(config.home if start is None else start, dtype=np.float64)
        self._velocity = np.zeros_like(self._position)
        self._gripper = 1.0
        self._input: F64 | None = None
        self._moved_ns: int | None = None
        self._dynamics = Dynamics(config, Payload()) if config.servo.torque else None
        self._connected = False
        self.wrench: F64 = np.zeros(6)
        """(6,) N and N·m that the next readings show."""
        self.silent = False
        """While true the device does not answer."""
        self.halted = False
        """Whether the arm holds by its own brakes."""

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the n joints."""
        return self._config.joint_names

    def connect(self) -> None:
        """Open the device."""
        self._connected = True

    def read(self) -> Measured:
        """The present reading."""
        self._check()
        self._move()
        return Measured(
            t_ns=self._now_ns(),
            joint_position=self._position.copy(),
            joint_velocity=self._velocity.copy(),
            joint_effort=np.zeros_like(self._position),
            wrench_tcp=self.wrench.copy(),
            gripper=self._gripper,
        )

    def write(self, command: JointCommand) -> None:
        """Go there."""
        self._check()
        for name in ("joint_position", "joint_velocity"):
            values = getattr(command, name)
            if values.shape != self._position.shape:
                raise RobotError(
                    f"{name} has shape {values.shape}; {self._config.name} has {self._position.size} joints"
                )
            if not np.all(np.isfinite(values)):
                raise RobotError(f"{name} {values.tolist()} is not finite")
        if not 0 <= command.gripper <= 1:
            raise RobotError(f"gripper {command.gripper} is outside [0, 1]")
        self._move()
        if self._config.servo.mode == "position":
            self._position = np.array(command.joint_position, dtype=np.float64)
            self._velocity = np.array(command.joint_velocity, dtype=np.float64)
        else:
            self._input = self._good_input(command)
        self._gripper = float(command.gripper)
        self.halted = False

    def halt(self) -> None:
        """Stop where it is."""
        self._input = None
        self._velocity = np.zeros_like(self._position)
        self.halted = True

    def close(self) -> None:
        """Halt and release."""
        self.halt()
        self._connected = False

    def _good_input(self, command: JointCommand) -> F64:
        given = command.servo_input
        if given is None or given.shape != self._position.shape or not np.all(np.isfinite(given)):
            mode, size = self._config.servo.mode, self._position.size
            raise RobotError(f"servo_input is {given}; mode {mode!r} needs {size} finite values")
        return np.array(given, dtype=np.float64)

    def _move(self) -> None:
        """Let the time that has passed since the last move pass for the joints."""
        now_ns = self._now_ns()
        passed_s = 0.0 if self._moved_ns is None else (now_ns - self._moved_ns) * 1e-9
        self._moved_ns = now_ns
        if self._input is None:
            return
        if self._dynamics is None:
            self._velocity = self._input
            self._position = self._position + passed_s * self._input
            return
        steps = max(1, round(passed_s / STEP_S)) if passed_s > 0 else 0
        for _ in range(steps):
            self._velocity = self._velocity + self._acceleration(self._dynamics) * passed_s / steps
            self._position = self._position + self._velocity * passed_s / steps

    def _acceleration(self, dynamics: Dynamics) -> F64:
        """(n,) rad/s² under the present torque; the columns of the inertia are torques at unit accelerations."""
        still = np.zeros_like(self._position)
        assert self._input is not None
        bias = dynamics.effort(self._position, self._velocity, still)
        inertia = [dynamics.effort(self._position, self._velocity, row) - bias for row in np.eye(len(still))]
        return np.array(np.linalg.solve(np.array(inertia).T, self._input - bias), dtype=np.float64)

    def _check(self) -> None:
        if not self._connected:
            raise RobotError(f"fake {self._config.name} is not connected; call connect() first")
        if self.silent:
            raise RobotError(f"fake {self._config.name} does not answer")
