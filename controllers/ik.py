"""Where the joints must be so that the TCP is where it should: kinematics of one arm, and differential IK (mink).

The model is the arm's MJCF with everything taken out that is no joint of the arm (fingers, actuators, sensors).
Nothing here raises while a loop runs: a target that cannot be reached is a status.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any

import mink
import mujoco
import numpy as np

from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.errors import ControlError, unknown
from reflexarc.configs.load import resolve_asset
from reflexarc.configs.robot import RobotConfig
from reflexarc.wire import geometry
from reflexarc.wire.messages import F64

SOLVER = "daqp"
ITERATIONS = 3
"""Newton-like steps in one tick; one is enough except at high speed or near a limit."""
CLOSE_M, CLOSE_RAD = 2e-5, 1e-4
"""A solution this near needs no further step."""
REACHED_M, REACHED_RAD = 1e-4, 1e-3
"""A target missed by more is reported as limited."""
FARTHEST_M = 100.0
"""A target beyond this is no place, but a fault."""
LIMIT_MARGIN_RAD = 0.03
"""Solutions stay this far inside the joint limits, a little further than what safety asks (its default is 0.02)."""
POSTURE_PER_M = 5.0
"""Share of the posture error that is undone per metre of travel: the elbow moves only while the hand does."""
FAR_DAMPING = 5.0
"""Levenberg-Marquardt damping per squared error: a target out of reach is drawn near to, not chattered at."""
SINGULAR = 0.05
"""Near a singularity: the smallest singular value of the TCP's Jacobian, m and rad; 0.15 at home."""
LEVER_M = 0.25
"""Metres of travel that one radian of turning counts for."""


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
    """Forward and differential inverse kinematics of one robot's TCP, in its base frame."""

    def __init__(self, robot: RobotConfig, config: ControllerConfig) -> None:
        self._model = arm_model(robot)
        self._configuration = mink.Configuration(self._model)
        self._damping = config.ik_damping
        self._site = _site(self._model, robot)
        self._base = self._base_pose(robot)
        self._base_inverse = geometry.inverse(self._base)
        self._base_turn = geometry.to_matrix(self._base_inverse[3:])
        self._frame = mink.FrameTask(
            robot.tcp_site, "site", position_cost=1.0, orientation_cost=1.0, lm_damping=FAR_DAMPING
        )
        self._posture = mink.PostureTask(self._model, cost=config.ik_posture_cost)
        self._posture.set_target(np.array(robot.home))
        self._velocity = np.array([joint.velocity for joint in robot.joints])
        speeds = {joint.name: joint.velocity for joint in robot.joints}
        self._position_limit = mink.ConfigurationLimit(self._model, min_distance_from_limits=LIMIT_MARGIN_RAD)
        self._lower, self._upper = self._position_limit.lower, self._position_limit.upper
        self._jacobian_at: tuple[F64, F64] | None = None
        self._limits = [self._position_limit, mink.VelocityLimit(self._model, speeds)]

    def forward(self, joint_position: F64) -> F64:
        """The TCP's pose (7,) in the base frame at `joint_position` (n,)."""
        self._configuration.update(joint_position)
        return self._tcp_pose()

    def twist(self, joint_position: F64, joint_velocity: F64) -> F64:
        """The TCP's velocity m/s and spin rad/s (6,) in the base frame."""
        result: F64 = self._jacobian(joint_position) @ joint_velocity
        return result

    def solve(self, target: F64, seed: F64, period_s: float) -> Solution:
        """The joint position near `seed` (n,) that brings the TCP to `target` (7,) within one period.

        No joint moves by more than its velocity limit allows in `period_s`; the elbow is drawn to the home posture
        in proportion to the travel.
        """
        if not (np.all(np.isfinite(target)) and float(np.max(np.abs(target[:3]))) < FARTHEST_M):
            return Solution(IkStatus.FAILED, seed, np.inf, np.inf)
        self._configuration.update(seed)
        # A seed outside the margin may stay where it is, but not go further: standing still is always feasible.
        self._position_limit.lower = np.minimum(self._lower, seed)
        self._position_limit.upper = np.maximum(self._upper, seed)
        world = geometry.compose(self._base, target)
        goal = world[:3], geometry.to_matrix(world[3:]).ravel()
        self._frame.set_target(mink.SE3(np.concatenate([world[3:], world[:3]])))
        error_m, error_rad = self._error(goal)
        self._posture.gain = min(1.0, POSTURE_PER_M * (error_m + LEVER_M * error_rad))
        try:
            for _ in range(ITERATIONS):
                self._step(period_s)
                self._posture.gain = 0.0
                error_m, error_rad = self._error(goal)
                if error_m < CLOSE_M and error_rad < CLOSE_RAD:
                    break
        except (mink.MinkError, ValueError, ArithmeticError, np.linalg.LinAlgError):
            return Solution(IkStatus.FAILED, seed, error_m, error_rad)
        return self._result(goal, error_m, error_rad, seed, period_s)

    def inverse_jacobian(self, joint_position: F64) -> F64:
        """(n, 6): joint velocities per m/s and rad/s of the TCP in the base frame, the least ones, damped."""
        jacobian = self._jacobian(joint_position)
        square = jacobian @ jacobian.T
        square.flat[:: len(square) + 1] += self._damping
        return np.array(np.linalg.solve(square, jacobian).T, dtype=np.float64)

    def velocity(self, joint_position: F64, guess: F64, twist: F64) -> F64:
        """The joint velocity (n,) nearest to `guess` that moves the TCP by `twist` (6,) m/s and rad/s, base frame.

        Near a singularity damping wins over exactness.
        """
        jacobian = self._jacobian(joint_position)
        missing = twist - jacobian @ guess
        square = jacobian @ jacobian.T
        square.flat[:: len(square) + 1] += self._damping
        result: F64 = guess + jacobian.T @ np.linalg.solve(square, missing)
        return result

    def step_to(self, target: F64, seed: F64, period_s: float) -> Solution:
        """The joint position nearest to `target` (n,) that the limits allow one period after `seed`; no IK."""
        reach = self._velocity * period_s
        lower, upper = np.minimum(self._lower, seed), np.maximum(self._upper, seed)
        found = np.clip(np.clip(target, lower, upper), seed - reach, seed + reach)
        error = float(np.max(np.abs(found - target)))
        return Solution(IkStatus.REACHED if error < REACHED_RAD else IkStatus.LIMITED, found, 0.0, error)

    def _step(self, period_s: float) -> None:
        velocity = mink.solve_ik(
            self._configuration,
            [self._frame, self._posture],
            period_s,
            SOLVER,
            damping=self._damping,
            limits=self._limits,
        )
        self._configuration.integrate_inplace(velocity, period_s)

    def _result(
        self, goal: tuple[F64, F64], error_m: float, error_rad: float, seed: F64, period_s: float
    ) -> Solution:
        found = self._configuration.q.copy()
        if not np.isfinite(found).all():
            return Solution(IkStatus.FAILED, seed, np.inf, np.inf)
        excess = float((np.abs(found - seed) / (self._velocity * period_s)).max())
        if excess > 1.0:
            found = seed + (found - seed) / excess
            self._configuration.update(found)
            error_m, error_rad = self._error(goal)
        if error_m < REACHED_M and error_rad < REACHED_RAD:
            return Solution(IkStatus.REACHED, found, error_m, error_rad)
        smallest = float(np.linalg.svd(self._jacobian(found), compute_uv=False)[-1])
        status = IkStatus.SINGULAR if smallest < SINGULAR else IkStatus.LIMITED
        return Solution(status, found, error_m, error_rad)

    def _error(self, goal: tuple[F64, F64]) -> tuple[float, float]:
        """How far the TCP is from `goal`, position (3,) and rotation matrix (9,) in the world: m, rad.

        Two rotations by an angle θ from each other differ by 2√2·sin(θ/2) in the Frobenius norm of their matrices.
        """
        data = self._configuration.data
        way, turn = goal[0] - data.site_xpos[self._site], goal[1] - data.site_xmat[self._site]
        half_sine = math.sqrt(float(turn @ turn) / 8.0)
        return math.sqrt(float(way @ way)), 2.0 * math.asin(min(half_sine, 1.0))

    def _jacobian(self, joint_position: F64) -> F64:
        """(6, n) of the TCP in the base frame. The last one is kept: a tick asks for it more than once."""
        if self._jacobian_at is not None and np.array_equal(self._jacobian_at[0], joint_position):
            return self._jacobian_at[1]
        if not np.array_equal(self._configuration.q, joint_position):
            self._configuration.update(joint_position)
        world = np.empty((6, self._model.nv))
        mujoco.mj_jacSite(self._model, self._configuration.data, world[:3], world[3:], self._site)
        jacobian: F64 = (self._base_turn @ world.reshape(2, 3, -1)).reshape(6, -1)
        self._jacobian_at = joint_position.copy(), jacobian
        return jacobian

    def _tcp_pose(self) -> F64:
        data = self._configuration.data
        matrix = data.site_xmat[self._site].reshape(3, 3)
        world = geometry.pose(data.site_xpos[self._site], geometry.from_matrix(matrix))
        return geometry.compose(self._base_inverse, world)

    def _base_pose(self, robot: RobotConfig) -> F64:
        body = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_BODY, robot.base_body)
        if body < 0:
            names = [self._model.body(i).name for i in range(self._model.nbody)]
            raise ControlError(f"{robot.mjcf}: " + unknown("base body", robot.base_body, names))
        data = self._configuration.data
        return geometry.pose(data.xpos[body].copy(), geometry.normalize(data.xquat[body]))


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
