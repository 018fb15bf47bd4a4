"""What judge and experts need to know of an arm's hand, read off the compiled model: geoms, finger tips, home pose."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np

from reflexarc.configs.robot import RobotConfig
from reflexarc.sim.arm import ArmIndex
from reflexarc.wire.messages import F64

HOME_NOISE_RAD = 0.02
"""Each joint starts within this of home."""

FINGER_ZONE = 0.03
"""Geoms that reach this near to the TCP's height belong to the finger tips, m."""


@dataclasses.dataclass(frozen=True, slots=True)
class HandShape:
    """The hand at home. down: (4,) quaternion wxyz of the TCP there.

    tip_below_tcp: how far the finger tips reach below the TCP, m. closed_half_width: of the closed finger tips,
    along y from the TCP, m.
    """

    down: F64
    tip_below_tcp: float
    closed_half_width: float


def arm_geoms(model: mujoco.MjModel, robot: RobotConfig) -> dict[int, int]:
    """Ids of all geoms of the arm, each with the id of its body."""
    root = model.body_rootid[model.body(robot.base_body).id]
    bodies = {i: int(model.geom_bodyid[i]) for i in range(model.ngeom)}
    return {geom: body for geom, body in bodies.items() if model.body_rootid[body] == root}


def put_home(
    model: mujoco.MjModel, data: mujoco.MjData, robot: RobotConfig, arm: ArmIndex, rng: np.random.Generator
) -> None:
    """The arm at home, give or take a little, at rest, the gripper open."""
    noise = rng.uniform(-HOME_NOISE_RAD, HOME_NOISE_RAD, len(robot.joints))
    lower = [joint.lower + HOME_NOISE_RAD for joint in robot.joints]
    upper = [joint.upper - HOME_NOISE_RAD for joint in robot.joints]
    arm.place(model, data, np.clip(np.add(robot.home, noise), lower, upper), 1.0)


def measure_hand(model: mujoco.MjModel, robot: RobotConfig, arm: ArmIndex) -> HandShape:
    """Measure the closed hand of the arm at home."""
    data = mujoco.MjData(model)
    arm.place(model, data, np.array(robot.home), 0.0)
    mujoco.mj_forward(model, data)
    tcp = np.array(data.site_xpos[arm.tcp])
    lowest, half_width = 0.0, 0.0
    for geom in _beyond_last_joint(model, robot):
        lower, upper = _bounds(model, data, geom)
        lowest = max(lowest, tcp[2] - lower[2])
        if lower[2] < tcp[2] + FINGER_ZONE:
            half_width = max(half_width, upper[1] - tcp[1], tcp[1] - lower[1])
    down = np.zeros(4)
    mujoco.mju_mat2Quat(down, data.site_xmat[arm.tcp])
    return HandShape(down, float(lowest), float(half_width))


def _beyond_last_joint(model: mujoco.MjModel, robot: RobotConfig) -> list[int]:
    """Ids of the geoms that touch things, on the last joint's body and below; parents come first in MuJoCo's order."""
    top = int(model.jnt_bodyid[model.joint(robot.joint_names[-1]).id])
    bodies = {top}
    for body in range(top + 1, model.nbody):
        if int(model.body_parentid[body]) in bodies:
            bodies.add(body)
    return [i for i in range(model.ngeom) if model.geom_bodyid[i] in bodies and model.geom_contype[i]]


def _bounds(model: mujoco.MjModel, data: mujoco.MjData, geom: int) -> tuple[F64, F64]:
    """Lower and upper corner (3,) of a geom's bounding box along the axes of the base frame, m."""
    center, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
    rotation = data.geom_xmat[geom].reshape(3, 3)
    middle = data.geom_xpos[geom] + rotation @ center
    reach = np.abs(rotation) @ half
    return middle - reach, middle + reach
