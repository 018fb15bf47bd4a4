"""The arms that ship: their MJCF against published kinematics, limits and masses, and whether a scene takes them."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from reflexarc.configs.load import load_robot, load_safety, resolve_asset
from reflexarc.safety import SafetyFilter
from reflexarc.safety.kinematics import Kinematics
from reflexarc.sim.world import World
from reflexarc.wire.messages import F64

UR5E = (
    (0.0, 0.1625, np.pi / 2),
    (-0.425, 0.0, 0.0),
    (-0.3922, 0.0, 0.0),
    (0.0, 0.1333, np.pi / 2),
    (0.0, 0.0997, -np.pi / 2),
    (0.0, 0.0996, 0.0),
)
"""(a m, d m, alpha rad), the classic convention: Universal Robots, DH parameters for calculations of kinematics and
dynamics."""

UR5E_MASSES = (3.761, 8.058, 2.846, 1.37, 1.3, 0.365)
"""kg, links 1 to 6: the same page."""

UR5E_TOOL = 0.117
"""m from the flange to between the finger tips: ours."""

ARMS = ("panda", "fr3", "ur5e")


@pytest.mark.parametrize("name", ARMS)
def test_the_mjcf_has_the_limits_of_the_config(name: str) -> None:
    robot = load_robot(name)
    model = mujoco.MjModel.from_xml_path(str(resolve_asset(robot.mjcf)))
    for joint in robot.joints:
        assert model.joint(joint.name).range == pytest.approx([joint.lower, joint.upper])
        assert model.actuator(joint.name).forcerange == pytest.approx([-joint.effort, joint.effort])


@pytest.mark.parametrize("name", ARMS)
def test_home_is_legal_and_points_the_hand_down_at_the_table(name: str) -> None:
    robot = load_robot(name)
    filter_ = SafetyFilter(robot, load_safety(name))
    home = np.array(robot.home)
    assert filter_.outside(home) == ""
    pose = filter_.kinematics.pose(home)
    assert pose[:3] == pytest.approx([0.45, 0.0, 0.25], abs=1e-3)
    assert np.abs(pose[3:]) == pytest.approx([0.0, 1.0, 0.0, 0.0], abs=1e-3)


@pytest.mark.parametrize("name", ARMS)
def test_a_scene_takes_the_arm_and_it_holds_itself(name: str) -> None:
    world = World("lift", load_robot(name))
    world.reset(0)
    before = world.data.qpos[world.arm.qpos].copy()
    control = world.data.ctrl.copy()
    for _ in range(200):
        world.step(control)
    assert np.abs(world.data.qpos[world.arm.qpos] - before).max() < 0.01


def test_the_ur5e_moves_as_published() -> None:
    robot = load_robot("ur5e")
    kinematics = Kinematics(robot)
    rng = np.random.default_rng(0)
    for _ in range(20):
        position = rng.uniform(-3, 3, 6)
        transform = np.eye(4)
        for angle, (a, d, alpha) in zip(position, UR5E, strict=True):
            transform = transform @ _classic(a, d, alpha, angle)
        point = transform[:3, 3] + UR5E_TOOL * transform[:3, 2]
        assert kinematics.view(position).point == pytest.approx(point, abs=1e-7)


def test_the_ur5e_weighs_what_is_published() -> None:
    robot = load_robot("ur5e")
    model = mujoco.MjModel.from_xml_path(str(resolve_asset(robot.mjcf)))
    links = [int(model.joint(name).id) for name in robot.joint_names]
    assert [float(model.body_mass[model.jnt_bodyid[joint]]) for joint in links] == pytest.approx(UR5E_MASSES)


def test_the_fr3_has_the_pandas_geometry() -> None:
    """The maker publishes the same Denavit-Hartenberg parameters for both."""
    panda, fr3 = Kinematics(load_robot("panda")), Kinematics(load_robot("fr3"))
    position = np.array([0.3, -0.2, 0.4, -2.0, 0.5, 2.0, 0.1])
    assert fr3.pose(position) == pytest.approx(panda.pose(position), abs=1e-12)


def _classic(a: float, d: float, alpha: float, theta: float) -> F64:
    """Rz(theta)·Tz(d)·Tx(a)·Rx(alpha)."""
    ct, st, ca, sa = np.cos(theta), np.sin(theta), np.cos(alpha), np.sin(alpha)
    return np.array(
        [
            [ct, -st * ca, st * sa, a * ct],
            [st, ct * ca, -ct * sa, a * st],
            [0.0, sa, ca, d],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
