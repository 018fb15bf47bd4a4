"""The arm's model: kinematics against the published table, limits, gravity; and arms that others wrote."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

from contracts.arm_stand import ArmStand, command, foreign_mjcf, foreign_robot
from reflexarc.configs.errors import SimulationError
from reflexarc.configs.load import load_robot
from reflexarc.configs.robot import RobotConfig
from reflexarc.safety.kinematics import Kinematics
from reflexarc.sim.arm import ArmIndex, load_arm_spec
from reflexarc.sim.driver import MujocoRobot
from reflexarc.sim.world import World
from reflexarc.wire.messages import F64

DENAVIT_HARTENBERG = (
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -np.pi / 2),
    (0.0, 0.316, np.pi / 2),
    (0.0825, 0.0, np.pi / 2),
    (-0.0825, 0.384, -np.pi / 2),
    (0.0, 0.0, np.pi / 2),
    (0.088, 0.0, np.pi / 2),
)
"""(a m, d m, alpha rad) of the seven joints, Craig's convention: Franka Control Interface documentation, "Robot and
interface specifications", Denavit-Hartenberg parameters."""

TCP_BELOW_FLANGE = 0.1034
FLANGE = 0.107


@pytest.fixture(scope="module")
def robot() -> RobotConfig:
    return load_robot("panda")


@pytest.fixture(scope="module")
def stand(robot: RobotConfig) -> ArmStand:
    return ArmStand(robot)


def random_positions(robot: RobotConfig, count: int) -> list[F64]:
    """Joint positions inside the limits."""
    rng = np.random.default_rng(7)
    lower = np.array([joint.lower for joint in robot.joints])
    upper = np.array([joint.upper for joint in robot.joints])
    return [rng.uniform(lower, upper) for _ in range(count)]


def test_kinematics_are_the_published_ones(robot: RobotConfig, stand: ArmStand) -> None:
    for position in random_positions(robot, 20):
        transform = np.eye(4)
        for angle, (a, d, alpha) in zip(position, DENAVIT_HARTENBERG, strict=True):
            transform = transform @ _craig(a, d, alpha, angle)
        transform = transform @ _craig(0.0, FLANGE + TCP_BELOW_FLANGE, 0.0, -np.pi / 4)
        pose = stand.tcp(position)
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, pose[3:])
        assert np.allclose(pose[:3], transform[:3, 3], atol=1e-9)
        # A model's text has six digits.
        assert np.allclose(rotation.reshape(3, 3), transform[:3, :3], atol=5e-6)


def test_home_is_above_the_table_pointing_down(robot: RobotConfig, stand: ArmStand) -> None:
    pose = stand.tcp(np.array(robot.home))
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, pose[3:])
    assert np.allclose(pose[:3], (0.45, 0.0, 0.25), atol=1e-4)
    assert np.allclose(rotation.reshape(3, 3), np.diag([1.0, -1.0, -1.0]), atol=1e-4)


def test_file_and_config_agree(robot: RobotConfig) -> None:
    """The file alone, as a viewer would load it, is the arm of the config."""
    model = mujoco.MjModel.from_xml_path(str(Path("configs") / robot.mjcf))
    loaded = load_arm_spec(robot).compile()
    index = ArmIndex.find(model, robot)
    for k, joint in enumerate(robot.joints):
        assert model.joint(joint.name).range == pytest.approx((joint.lower, joint.upper))
        actuator = index.actuator[k]
        for each in (model, loaded):
            assert each.actuator_forcerange[actuator, 1] == joint.effort
            assert each.actuator_gainprm[actuator, 0] == robot.servo.stiffness[k]
            assert each.actuator_biasprm[actuator, 1] == -robot.servo.stiffness[k]
            assert each.actuator_biasprm[actuator, 2] == -robot.servo.damping[k]
    assert 2 * index.finger_open.mean() == pytest.approx(robot.gripper.max_width)


def test_gravity_compensation_is_the_slope_of_the_potential(robot: RobotConfig, stand: ArmStand) -> None:
    model = stand.model
    model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_ENERGY
    for position in random_positions(robot, 5):
        stand.place(position)
        compensation = stand.data.qfrc_gravcomp[stand.index.dof].copy()
        slope = np.zeros_like(position)
        for k in range(position.size):
            energies = []
            for step in (1e-5, -1e-5):
                moved = position.copy()
                moved[k] += step
                stand.place(moved)
                energies.append(float(stand.data.energy[0]))
            slope[k] = (energies[0] - energies[1]) / 2e-5
        assert np.allclose(compensation, slope, atol=1e-4)


def test_holds_still_anywhere_without_sagging(robot: RobotConfig, stand: ArmStand) -> None:
    for position in random_positions(robot, 40):
        stand.place(position)
        if stand.data.ncon:
            continue
        control = stand.data.ctrl.copy()
        for _ in range(200):
            stand.step(control)
        assert np.abs(stand.data.qpos[stand.index.qpos] - position).max() < 1e-6


def test_no_servo_oscillates_in_any_pose(robot: RobotConfig) -> None:
    stand = ArmStand(robot)
    stand.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
    for start in random_positions(robot, 6):
        for joint in range(start.size):
            stand.place(start)
            step = 0.005 if start[joint] < np.mean(stand.model.jnt_range[joint]) else -0.005
            control = stand.data.ctrl.copy()
            control[stand.index.actuator[joint]] += step
            response = []
            for _ in range(160):
                stand.step(control)
                response.append((stand.data.qpos[stand.index.qpos[joint]] - start[joint]) / step)
            assert max(response) < 1.05
            assert response[-1] == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"tcp_site": "tool"}, "unknown site 'tool'; known: attachment"),
        ({"base_body": "base"}, "unknown body 'base'; known: jaw_left"),
        ({"mjcf": "mjcf/none.xml"}, "does not exist"),
    ],
)
def test_what_the_file_lacks_is_named(tmp_path: Path, change: dict[str, object], text: str) -> None:
    robot = foreign_robot(foreign_mjcf(tmp_path), **change)
    with pytest.raises(Exception, match=text):
        load_arm_spec(robot)


def test_missing_joint_and_actuator_are_named(tmp_path: Path) -> None:
    path = foreign_mjcf(tmp_path)
    path.write_text(path.read_text().replace('<motor name="m2" joint="axis_2" gear="50"/>', ""))
    with pytest.raises(SimulationError, match=r"no actuator drives joint 'axis_2'; driven: axis_0, axis_1"):
        load_arm_spec(foreign_robot(path))
    path.write_text(path.read_text().replace("axis_2", "elbow"))
    with pytest.raises(SimulationError, match=r"unknown joint 'axis_2'; known: axis_0, .*elbow"):
        load_arm_spec(foreign_robot(path))


def test_malformed_file_is_one_line(tmp_path: Path) -> None:
    path = foreign_mjcf(tmp_path)
    path.write_text(path.read_text().replace("</worldbody>", ""))
    with pytest.raises(SimulationError, match="robot foreign: cannot load"):
        load_arm_spec(foreign_robot(path))


def test_a_foreign_arm_goes_where_it_is_told(tmp_path: Path) -> None:
    robot = foreign_robot(foreign_mjcf(tmp_path))
    stand = ArmStand(robot)
    driver = MujocoRobot(stand, robot)
    driver.connect()
    goal = np.array(robot.home)
    for _ in range(200):
        goal[2] -= 0.001
        driver.write(command(goal, np.array([0, 0, -0.2, 0, 0, 0.0]), gripper=0.5))
        driver.advance(2)
    driver.write(command(goal, gripper=0.5))
    driver.advance(400)
    measured = driver.read()
    assert np.abs(measured.joint_position - goal).max() < 1e-4
    assert measured.gripper == pytest.approx(0.5, abs=0.05)
    assert np.abs(measured.wrench_tcp).max() < 1e-6  # nothing touches it, whatever its tool weighs


def test_a_foreign_arm_stands_in_a_scene(tmp_path: Path) -> None:
    robot = foreign_robot(foreign_mjcf(tmp_path))
    world = World("reach", robot)
    assert world.hand.tip_below_tcp >= 0
    driver = MujocoRobot(world, robot)
    driver.connect()
    driver.advance(200)
    assert np.abs(driver.read().joint_position - robot.home).max() < 0.03
    pose = Kinematics(robot).pose(np.array(world.data.qpos[world.arm.qpos]))
    mujoco.mj_kinematics(world.model, world.data)
    assert np.allclose(pose[:3], world.data.site_xpos[world.arm.tcp], atol=1e-9)


def _craig(a: float, d: float, alpha: float, theta: float) -> F64:
    """The transform (4, 4) of one row of the table."""
    ct, st, ca, sa = np.cos(theta), np.sin(theta), np.cos(alpha), np.sin(alpha)
    return np.array(
        [
            [ct, -st, 0.0, a],
            [st * ca, ct * ca, -sa, -d * sa],
            [st * sa, ct * sa, ca, d * ca],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
