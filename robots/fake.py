"""A kinematic arm that does at once what it is told: for tests and for trying out the host without physics.

It is never chosen on a user's behalf: a driver that fails to open stays an error.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reflexarc.configs.errors import RobotError
from reflexarc.configs.robot import RobotConfig
from reflexarc.wire.messages import F64, JointCommand, Measured


class FakeRobot:
    """A `Robot` whose measured position is the last command. `now_ns` is the clock that stamps its readings."""

    def __init__(self, config: RobotConfig, now_ns: Callable[[], int], start: F64 | None = None) -> None:
        """start: (n,) rad, where the arm stands at first; the robot's home if None."""
        self._config = config
        self._now_ns = now_ns
        self._position = np.array(config.home if start is None else start, dtype=np.float64)
        self._velocity = np.zeros_like(self._position)
        self._gripper = 1.0
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
        self._position = np.array(command.joint_position, dtype=np.float64)
        self._velocity = np.array(command.joint_velocity, dtype=np.float64)
        self._gripper = float(command.gripper)
        self.halted = False

    def halt(self) -> None:
        """Stop where it is."""
        self._velocity = np.zeros_like(self._position)
        self.halted = True

    def close(self) -> None:
        """Halt and release."""
        self.halt()
        self._connected = False

    def _check(self) -> None:
        if not self._connected:
            raise RobotError(f"fake {self._config.name} is not connected; call connect() first")
        if self.silent:
            raise RobotError(f"fake {self._config.name} does not answer")
