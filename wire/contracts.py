"""The three things a user can plug in: a `Policy`, a `Robot`, a `Teleoperator`.

Structural types: nothing has to inherit from them. Each has one contract test suite under `tests/contracts`
that every implementation passes.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

from reflexarc.configs.errors import ReflexarcError
from reflexarc.wire.messages import (
    F64,
    ActionChunk,
    JointCommand,
    Measured,
    Observation,
    PolicyInfo,
    TeleopKey,
    TeleopKind,
)


@runtime_checkable
class Policy(Protocol):
    """Turns one observation into one chunk of actions."""

    @property
    def info(self) -> PolicyInfo:
        """What this policy needs and emits; constant."""

    def reset(self, session: str) -> None:
        """Forget whatever was remembered of `session`; called at the start of each episode."""

    def act(self, observation: Observation) -> ActionChunk:
        """Answer `observation`; raises PolicyError on a missing camera or a wrong image size."""


@runtime_checkable
class BatchPolicy(Policy, Protocol):
    """A policy that answers several robots in one pass of its model."""

    def act_batch(self, observations: list[Observation]) -> list[ActionChunk | ReflexarcError]:
        """An answer to each; one that cannot be answered gets its error and disturbs no other."""


@runtime_checkable
class Robot(Protocol):
    """A driver: reads sensors and writes commands. It is owned by the robot host, which filters every command.

    No method blocks for longer than one tick. `read` returns the latest reading, whose `t_ns` tells its age.
    """

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the n joints, in the order of every array."""

    def connect(self) -> None:
        """Open the device; raises RobotError naming what was tried if it does not answer. Causes no motion."""

    def read(self) -> Measured:
        """The latest sensor reading. Raises RobotError if the device is not connected."""

    def write(self, command: JointCommand) -> None:
        """Send one filtered command. Raises RobotError on wrong shapes or values that are not finite."""

    def halt(self) -> None:
        """Brake by the device's own means and hold; needs no command stream afterwards.

        An arm without brakes holds itself under power: it must not drop.
        """

    def close(self) -> None:
        """Halt and release the device; safe to call twice."""


@runtime_checkable
class Teleoperator(Protocol):
    """A person's (or a script's) input device. No method but `connect` blocks."""

    def connect(self) -> None:
        """Open the device; raises RobotError naming what was tried if it is not there. Causes no motion."""

    def read(self) -> TeleopInput | None:
        """The latest input, or None while the dead-man is released. Raises RobotError if the device has gone."""

    def keys(self) -> tuple[TeleopKey, ...]:
        """Episode keys pressed since this was last asked, in their order; `read` notices them."""

    def close(self) -> None:
        """Release the device; safe to call twice."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class TeleopInput:
    """One input while the dead-man is held.

    motion: what `kind` says, as in `TeleopCommand`. gripper: opening 0 closed .. 1 open, None to leave it as it is,
    as a device must until the person has asked for something: else a take-over would drop what is held.
    """

    motion: F64
    gripper: float | None = None
    kind: TeleopKind = "twist"
