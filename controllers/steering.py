"""From a person's input to a path: steering by rates, or by how far a device was moved since it was taken hold of.

Every kind of input moves a *target*; the path runs from where the motion is now to the target and comes to rest there
a moment later. The next input starts a new path at that place and velocity, so no input can make the setpoints jump,
and when inputs stop coming the arm has come to rest by itself.
"""

from __future__ import annotations

import math

import numpy as np

from reflexarc.configs.action import ActionDim, ActionSpec, tcp_delta_spec
from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.robot import RobotConfig
from reflexarc.controllers.chunk import Knots, Space
from reflexarc.controllers.gauss_newton import LEVER_M
from reflexarc.controllers.ik import ArmKinematics
from reflexarc.controllers.interpolate import Braking, CubicPath
from reflexarc.controllers.path import NS, Sample
from reflexarc.wire import geometry
from reflexarc.wire.messages import F64, TeleopCommand

LONGEST_INPUT_NS = 100_000_000
"""A rate counts for no longer than this: a device that was away has not meant to move all that time."""
TETHER_M, TETHER_RAD = 0.04, 0.2
"""How far rates may pull the target ahead of what the robot host commands, for instance against a limit."""
_LEAD = 2.0 / 3.0
"""Share of its time at which a cubic to rest stays at its velocity at first: the target is ahead by that much."""
JOINT_SHARE = 0.3
"""Share of the joints' published velocity and acceleration that a person may use in joint space."""


def steering_spec(robot: RobotConfig, *, joints: bool) -> ActionSpec:
    """The action space a controller steers in without a policy: the joints themselves, or the TCP."""
    if not joints:
        return tcp_delta_spec(1, 0.1)
    dims = [
        ActionDim(name=j.name, unit="rad", frame="joint", delta=False, lower=j.lower, upper=j.upper)
        for j in robot.joints
    ]
    gripper = ActionDim(name="gripper", unit="opening", frame="gripper", delta=False, lower=0.0, upper=1.0)
    return ActionSpec(id=f"joints-{len(dims)}", dims=(*dims, gripper), step_s=0.1, horizon=1)


class Steering:
    """A person's hold on the arm, from engaging to releasing."""

    def __init__(
        self, config: ControllerConfig, robot: RobotConfig, space: Space, kinematics: ArmKinematics
    ) -> None:
        self._space = space
        self._kinematics = kinematics
        self._follow_s = config.teleop_follow_s
        self._speed = config.teleop_speed
        self._acceleration = config.teleop_acceleration
        self._joint_speeds = JOINT_SHARE * np.array([joint.velocity for joint in robot.joints])
        self._joint_accelerations = JOINT_SHARE * np.array([joint.acceleration for joint in robot.joints])
        # The target is a place to rest at: what goes on from there is the next input's business.
        self._braking = Braking(config.hold_deceleration, config.hold_deceleration / LEVER_M, rest=True)
        self._anchor: Sample | None = None

    def release(self) -> None:
        """The person has let go: the next input takes hold anew."""
        self._anchor = None

    def refusal(self, command: TeleopCommand) -> str:
        """Why `command` cannot be followed, naming the field; empty if it can."""
        if self._anchor is not None and self._kind != command.kind:
            return f"kind is {command.kind!r}, it was engaged with {self._kind!r}"
        expected = (len(self._joint_speeds),) if command.kind == "joint_offset" else (6,)
        if command.motion.shape != expected:
            return f"motion of kind {command.kind!r} has shape {command.motion.shape}, it must be {expected}"
        if not np.all(np.isfinite(command.motion)):
            return f"motion is {command.motion.tolist()}, it must be finite"
        if command.gripper is not None and not math.isfinite(command.gripper):
            return f"gripper is {command.gripper}, it must be finite"
        return ""

    def knots(
        self,
        command: TeleopCommand,
        present: Sample,
        commanded: Sample,
        joints: F64,
        gripper: float,
        join_ns: int,
    ) -> Knots:
        """The way to the target from `present`, the motion at `join_ns`.

        commanded: what the host commands now. joints: (n,) rad, where the path has brought them. gripper: opening that
        is kept where the command asks for none.
        """
        if self._anchor is None:
            self._anchor = self._target = self._coasting(present)
            self._anchor_joints = joints.copy()
            self._kind, self._origin = command.kind, command.motion
            self._heard_ns = command.t_ns
        if command.gripper is not None:
            gripper = min(max(command.gripper, 0.0), 1.0)
        self._move_target(command, commanded)
        self._heard_ns = command.t_ns
        target = self._target
        turn = geometry.difference(target.quat, present.quat)
        gap = target.point - present.point
        step_s = self._time_to(gap, turn, present)
        return Knots(
            start_ns=join_ns,
            step_ns=round(step_s / NS),
            points=np.vstack([present.point, target.point]),
            quats=np.array([present.quat, target.quat]),
            turns=turn[None],
            velocity=present.velocity,
            spin=present.spin,
            gripper=np.array([gripper]),
        )

    def standing(self, present: Sample, gripper: float, join_ns: int) -> Knots:
        """No way at all."""
        return Knots(
            start_ns=join_ns,
            step_ns=round(self._follow_s / NS),
            points=np.vstack([present.point, present.point]),
            quats=np.array([present.quat, present.quat]),
            turns=np.zeros((1, 3)),
            velocity=present.velocity,
            spin=present.spin,
            gripper=np.array([gripper]),
        )

    def path(self, knots: Knots) -> CubicPath:
        """Along `knots`, to rest at the target."""
        return CubicPath(knots, self._braking)

    def _coasting(self, present: Sample) -> Sample:
        """Where the path would lead from `present` without any change of its velocity now: a target that brakes it."""
        led = _LEAD * self._follow_s
        quat = geometry.multiply(geometry.exp(led * present.spin), present.quat)
        return self._at(present.point + led * present.velocity, quat)

    def _move_target(self, command: TeleopCommand, commanded: Sample) -> None:
        assert self._anchor is not None
        if command.kind == "twist":
            passed = min(max(command.t_ns - self._heard_ns, 0), LONGEST_INPUT_NS) * NS
            self._target = self._tethered(self._pushed(command.motion * passed), commanded)
        elif self._space == "joint":
            self._target = self._at(self._offset_joints(command), self._anchor.quat)
        elif command.kind == "offset":
            pose = geometry.apply_delta(
                geometry.pose(self._anchor.point, self._anchor.quat), self._moved(command)
            )
            self._target = self._at(pose[:3], pose[3:])
        else:
            pose = self._kinematics.forward(self._anchor_joints + self._moved(command))
            self._target = self._at(pose[:3], pose[3:])

    def _moved(self, command: TeleopCommand) -> F64:
        """How far the device was moved since it was engaged, (6,) m and rotation vector or (n,) rad."""
        if command.kind == "joint_offset":
            return command.motion - self._origin
        here = geometry.pose(command.motion[:3], geometry.exp(command.motion[3:]))
        return geometry.delta_between(geometry.pose(self._origin[:3], geometry.exp(self._origin[3:])), here)

    def _pushed(self, motion: F64) -> Sample:
        """The target moved by `motion` (6,) m and rotation vector, base frame."""
        target = self._target
        if self._space == "joint":
            still = np.zeros_like(target.point)
            return self._at(
                target.point + self._kinematics.velocity(target.point, still, motion), target.quat
            )
        pose = geometry.apply_delta(geometry.pose(target.point, target.quat), motion)
        return self._at(pose[:3], pose[3:])

    def _tethered(self, target: Sample, commanded: Sample) -> Sample:
        """`target`, no further from `commanded` than the tether."""
        gap = target.point - commanded.point
        if self._space == "joint":
            return self._at(commanded.point + np.clip(gap, -TETHER_RAD, TETHER_RAD), target.quat)
        turn = geometry.difference(target.quat, commanded.quat)
        quat = geometry.multiply(geometry.exp(_shortened(turn, TETHER_RAD)), commanded.quat)
        return self._at(commanded.point + _shortened(gap, TETHER_M), quat)

    def _offset_joints(self, command: TeleopCommand) -> F64:
        """(n,) rad: where the offset leads in joint space."""
        if command.kind == "joint_offset":
            return self._anchor_joints + self._moved(command)
        pose = geometry.apply_delta(self._kinematics.forward(self._anchor_joints), self._moved(command))
        return self._kinematics.solve(pose, self._target.point, LONGEST_INPUT_NS * NS).joint_position

    def _time_to(self, gap: F64, turn: F64, present: Sample) -> float:
        """Seconds to the target: the usual, or more where the way is long or asks for a sharp start.

        A cubic from rest to rest is at most 1.5 times as fast as its mean; it starts at 6 (gap - `_LEAD` v h) / h².
        """
        led = _LEAD * self._follow_s
        ahead, ahead_turn = gap - led * present.velocity, turn - led * present.spin
        if self._space == "joint":
            far = float(np.max(np.abs(gap) / self._joint_speeds))
            sharp = float(np.max(np.abs(ahead) / self._joint_accelerations))
        else:
            far = _length(gap, turn) / self._speed
            sharp = _length(ahead, ahead_turn) / self._acceleration
        return max(self._follow_s, 1.5 * far, math.sqrt(6.0 * sharp))

    def _at(self, point: F64, quat: F64) -> Sample:
        return Sample(point, quat, np.zeros_like(point), np.zeros(3))


def _shortened(vector: F64, longest: float) -> F64:
    length = float(np.linalg.norm(vector))
    return vector if length <= longest else vector * (longest / length)


def _length(way: F64, turn: F64) -> float:
    """Metres, a radian counting for `LEVER_M`."""
    return float(np.linalg.norm(way)) + LEVER_M * float(np.linalg.norm(turn))
