"""Where the joints must be so that the TCP is where it should: kinematics of one arm, and differential IK.

The model is the arm's MJCF with everything taken out that is no joint of the arm (fingers, actuators, sensors); what
the loop needs of it is read off once. Nothing here raises while a loop runs: a target out of reach is a status.
"""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import math
from typing import Any

import daqp
import mujoco
import numpy as np

from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.errors import ControlError, unknown
from reflexarc.configs.load import resolve_asset
from reflexarc.configs.robot import RobotConfig
from reflexarc.controllers.gauss_newton import NONSENSE, descend, empty_program, joint_rates, with_twist
from reflexarc.wire import geometry
from reflexarc.wire.chain import jacobian, place, read_chain
from reflexarc.wire.messages import F64

SOLVED = 1
"""Flag of daqp: the minimum was found."""
ITERATIONS = 3
"""Steps in one tick; one is enough except at high speed or near a limit."""
REACHED_M, REACHED_RAD = 1e-4, 1e-3
"""A target missed by more is reported as limited."""
LIMIT_MARGIN_RAD = 0.03
"""Solutions stay this far inside the joint limits, a little further than what safety asks (its default is 0.02)."""
SINGULAR = 0.05
"""Near a singularity: the smallest singular value of the TCP's Jacobian, m and rad; 0.15 at home."""


class IkStatus(enum.Enum):
    """What became of one solve."""

    REACHED = "reached"
    LIMITED = "limited"  # short of the target: a joint's limit or velocity
    SINGULAR = "singular"  # short of the target: joint motion is damped near a singularity
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Joint position (n,) rad, what is left of the error (m, rad), and how it went. FAILED keeps the seed."""

    status: IkStatus
    joint_position: F64
    error_m: float
    error_rad: float


class ArmKinematics:
    """Forward and differential inverse kinematics of one robot's TCP, in its base frame.

    Holds scratch memory, so one instance serves one thread.
    """

    def __init__(self, robot: RobotConfig, config: ControllerConfig) -> None:
        model = arm_model(robot)
        joints = list(range(model.njnt))
        self._chain, _ = read_chain(model, _base(model, robot), _site(model, robot), joints)
        self._posture, self._damping = config.ik_posture_cost, config.ik_damping
        self._home = np.array(robot.home, dtype=np.float64)
        self._velocity = np.array([joint.velocity for joint in robot.joints])
        self._lower = np.array([joint.lower for joint in robot.joints]) + LIMIT_MARGIN_RAD
        self._upper = np.array([joint.upper for joint in robot.joints]) - LIMIT_MARGIN_RAD
        n = len(joints)
        self._program = empty_program(n)
        self._no_rows, self._sense = np.zeros((0, n)), np.zeros(n, dtype=ctypes.c_int)
        self._warm_up()

    def _warm_up(self) -> None:
        """Compile, or load, the kernels: the loop must not stand still for it."""
        self.solve(self.forward(self._home), self._home, 1.0)
        self.velocity(self._home, np.zeros_like(self._home), np.zeros(6))
        self.inverse_jacobian(self._home)

    def forward(self, joint_position: F64) -> F64:
        """The TCP's pose (7,) in the base frame at `joint_position` (n,)."""
        origin, turn = self._frames(joint_position)
        return geometry.pose(origin[-1], geometry.from_matrix(turn[-1]))

    def twist(self, joint_position: F64, joint_velocity: F64) -> F64:
        """The TCP's velocity m/s and spin rad/s (6,) in the base frame."""
        rows = np.empty((6, len(joint_position)))
        jacobian(*self._frames(joint_position), rows)
        result: F64 = rows @ joint_velocity
        return result

    def solve(self, target: F64, seed: F64, period_s: float) -> Solution:
        """The joint position near `seed` (n,) that brings the TCP to `target` (7,) within one period.

        No joint moves by more than its velocity limit allows in `period_s`; the elbow is drawn to the home posture
        in proportion to the travel. A seed outside the margin of the joint limits may stay where it is, but not go
        further.
        """
        lowest, highest = np.minimum(self._lower, seed), np.maximum(self._upper, seed)
        reach, position = self._velocity * period_s, seed.copy()
        steps, error_m, error_rad = self._descend(target, lowest, highest, reach, ITERATIONS, True, position)
        while steps > 0:
            if not self._step_within_bounds(position):
                return Solution(IkStatus.FAILED, seed, error_m, error_rad)
            steps, error_m, error_rad = self._descend(
                target, lowest, highest, reach, steps - 1, False, position
            )
        excess = float((np.abs(position - seed) / reach).max())
        if excess > 1.0:
            position = seed + (position - seed) / excess
            _, error_m, error_rad = self._descend(target, lowest, highest, reach, 0, False, position)
        if steps == NONSENSE or not math.isfinite(error_m + error_rad):
            return Solution(IkStatus.FAILED, seed, math.inf, math.inf)
        return Solution(self._status(error_m, error_rad), position, error_m, error_rad)

    def inverse_jacobian(self, joint_position: F64) -> F64:
        """(n, 6): joint velocities per m/s and rad/s of the TCP in the base frame, the least ones, damped."""
        return joint_rates(*self._chain, joint_position, self._damping)

    def velocity(self, joint_position: F64, guess: F64, twist: F64) -> F64:
        """The joint velocity (n,) nearest to `guess` that moves the TCP by `twist` (6,) m/s and rad/s, base frame.

        Near a singularity damping wins over exactness.
        """
        return with_twist(*self._chain, joint_position, guess, twist, self._damping)

    def step_to(self, target: F64, seed: F64, period_s: float) -> Solution:
        """The joint position nearest to `target` (n,) that the limits allow one period after `seed`; no IK."""
        reach = self._velocity * period_s
        lower, upper = np.minimum(self._lower, seed), np.maximum(self._upper, seed)
        found = np.clip(np.clip(target, lower, upper), seed - reach, seed + reach)
        error = float(np.max(np.abs(found - target)))
        return Solution(IkStatus.REACHED if error < REACHED_RAD else IkStatus.LIMITED, found, 0.0, error)

    def _step_within_bounds(self, position: F64) -> bool:
        """Move position (n,) by the minimum of the program in the scratch memory, some bounds of which bind."""
        at = self._program
        step, _, flag, _ = daqp.solve(at.hessian, at.gradient, self._no_rows, at.high, at.low, self._sense)
        if flag != SOLVED:
            return False
        position += np.minimum(np.maximum(step, at.low), at.high)
        return True

    def _descend(
        self, target: F64, lowest: F64, highest: F64, reach: F64, steps: int, first: bool, position: F64
    ) -> tuple[int, float, float]:
        return descend(
            *self._chain,
            *self._program,
            target,
            self._home,
            lowest,
            highest,
            reach,
            self._posture,
            self._damping,
            steps,
            first,
            position,
        )

    def _status(self, error_m: float, error_rad: float) -> IkStatus:
        """Of a solution that misses the target by this, where `_descend` looked last."""
        if error_m < REACHED_M and error_rad < REACHED_RAD:
            return IkStatus.REACHED
        smallest = float(np.linalg.svd(self._program.jacobian, compute_uv=False)[-1])
        return IkStatus.SINGULAR if smallest < SINGULAR else IkStatus.LIMITED

    def _frames(self, joint_position: F64) -> tuple[F64, F64]:
        """Of base, joints and TCP: (n+2, 3) and (n+2, 3, 3)."""
        n = len(joint_position)
        origin, turn = np.empty((n + 2, 3)), np.empty((n + 2, 3, 3))
        place(self._chain, np.array(joint_position, dtype=np.float64), origin, turn)
        return origin, turn


def arm_model(robot: RobotConfig) -> mujoco.MjModel:
    """The arm alone: the joints of `robot`, in its order, with its limits; anything else that moves is frozen.

    Raises ControlError naming the file if it cannot be compiled or lacks a joint.
    """
    path = resolve_asset(robot.mjcf)
    try:
        spec = mujoco.MjSpec.from_file(str(path))
        _strip(spec, robot)
        model = spec.compile()
    except ValueError as error:
        raise ControlError(f"cannot build the kinematics of {robot.name} from {path}: {error}") from error
    names = tuple(model.joint(i).name for i in range(model.njnt))
    if names != robot.joint_names:
        raise ControlError(
            f"{path} has joints {', '.join(names)}, {robot.name} has {', '.join(robot.joint_names)}"
        )
    model.jnt_range[:] = [(joint.lower, joint.upper) for joint in robot.joints]
    model.jnt_limited[:] = 1
    return model


def _strip(spec: Any, robot: RobotConfig) -> None:
    """Take out of `spec` all that moves, drives, ties or measures anything but the arm's joints."""
    for kind in ("actuators", "sensors", "equalities", "tendons", "keys", "excludes"):
        for element in list(getattr(spec, kind)):
            spec.delete(element)
    for joint in list(spec.joints):
        if joint.name not in robot.joint_names:
            spec.delete(joint)


def _site(model: mujoco.MjModel, robot: RobotConfig) -> int:
    site = int(mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, robot.tcp_site))
    if site < 0:
        names = [model.site(i).name for i in range(model.nsite)]
        raise ControlError(f"{robot.mjcf}: " + unknown("TCP site", robot.tcp_site, names))
    return site


def _base(model: mujoco.MjModel, robot: RobotConfig) -> int:
    body = int(mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, robot.base_body))
    if body < 0:
        names = [model.body(i).name for i in range(model.nbody)]
        raise ControlError(f"{robot.mjcf}: " + unknown("base body", robot.base_body, names))
    return body
