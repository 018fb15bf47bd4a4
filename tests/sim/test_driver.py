"""The simulated arm under the virtual clock: accuracy, forces, grip, brake, and the same trajectory every time."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from contracts.arm_stand import BLOCK_MASS, ArmStand, command
from contracts.robot_suite import RobotBench, RobotContract
from reflexarc.configs.load import load_robot
from reflexarc.configs.robot import RobotConfig
from reflexarc.robots.servo import PositionServo
from reflexarc.sim.brake import ACCELERATION_SHARE, Brake
from reflexarc.sim.driver import MujocoRobot
from reflexarc.wire.messages import F64, SimSteps

TICK_S = 0.005
STEPS = 2
"""Physics steps of a host tick."""

GRAVITY = 9.81


@pytest.fixture(scope="module")
def robot() -> RobotConfig:
    return load_robot("panda")


@pytest.fixture
def stand(robot: RobotConfig) -> ArmStand:
    return ArmStand(robot)


@pytest.fixture
def driver(stand: ArmStand) -> MujocoRobot:
    made = MujocoRobot(stand, stand.robot)
    made.connect()
    return made


class TestContract(RobotContract):
    def make(self) -> RobotBench:
        robot = load_robot("panda")
        driver = MujocoRobot(ArmStand(robot), robot)
        return RobotBench(robot=driver, config=robot, advance=lambda: driver.advance(STEPS) and None)


def circle(stand: ArmStand, speed: float, radius: float, ticks: int) -> tuple[F64, F64]:
    """(ticks, n) positions and velocities of a TCP that speeds up along a horizontal circle."""
    pose = stand.tcp(np.array(stand.robot.home))
    position = np.array(stand.robot.home)
    positions, angle = [], 0.0
    for tick in range(ticks):
        offset = radius * np.array([np.cos(angle) - 1, np.sin(angle), 0.0])
        position = stand.inverse(position, np.concatenate([pose[:3] + offset, pose[3:]]))
        positions.append(position)
        angle += min(1.0, tick / 60) * speed / radius * TICK_S
    return np.array(positions), np.gradient(np.array(positions), TICK_S, axis=0)


def follow(driver: MujocoRobot, positions: F64, velocities: F64, gripper: float = 1.0) -> list[SimSteps]:
    """Send one row a tick."""
    batches = []
    for position, velocity in zip(positions, velocities, strict=True):
        driver.write(command(position, velocity, gripper))
        batches.append(driver.advance(STEPS))
    return batches


def test_tracks_a_circle_within_two_millimetres(stand: ArmStand, driver: MujocoRobot) -> None:
    positions, velocities = circle(stand, 0.3, 0.08, 500)
    errors, forces, speeds = [], [], []
    for tick in range(len(positions)):
        measured = driver.read()
        errors.append(stand.tcp(measured.joint_position)[:3] - stand.tcp(positions[tick])[:3])
        forces.append(measured.wrench_tcp[:3])
        speeds.append(
            np.linalg.norm(stand.tcp(positions[tick])[:3] - stand.tcp(positions[tick - 1])[:3]) / TICK_S
        )
        driver.write(command(positions[tick], velocities[tick]))
        driver.advance(STEPS)
    assert np.median(speeds) == pytest.approx(0.3, rel=0.02)
    assert np.linalg.norm(errors, axis=1).max() < 0.002
    assert np.linalg.norm(forces, axis=1).max() < 0.5


def test_without_feed_forward_it_would_lag(stand: ArmStand, driver: MujocoRobot) -> None:
    positions, velocities = circle(stand, 0.3, 0.08, 300)
    follow(driver, positions, np.zeros_like(velocities))
    error = stand.tcp(driver.read().joint_position)[:3] - stand.tcp(positions[-1])[:3]
    assert np.linalg.norm(error) > 0.004


def test_servo_law_is_torque_on_both_errors(robot: RobotConfig) -> None:
    rng = np.random.default_rng(3)
    wanted, velocity, position, speed = rng.normal(size=(4, 7))
    stiffness, damping = np.array(robot.servo.stiffness), np.array(robot.servo.damping)
    control = PositionServo(robot).input(command(wanted, velocity), wanted, velocity)
    torque = stiffness * (control - position) - damping * speed
    assert np.allclose(torque, stiffness * (wanted - position) + damping * (velocity - speed))


def test_same_commands_same_bits(robot: RobotConfig) -> None:
    runs = []
    for _ in range(2):
        stand = ArmStand(robot, block=True)
        driver = MujocoRobot(stand, robot)
        driver.connect()
        positions, velocities = circle(stand, 0.25, 0.05, 120)
        runs.append(follow(driver, positions, velocities, gripper=0.0))
    for first, second in zip(*runs, strict=True):
        assert first.qpos.tobytes() == second.qpos.tobytes()
        assert first.qvel.tobytes() == second.qvel.tobytes()
        assert first.control.tobytes() == second.control.tobytes()


def test_logged_controls_alone_repeat_the_trajectory(
    robot: RobotConfig, driver: MujocoRobot, stand: ArmStand
) -> None:
    positions, velocities = circle(stand, 0.3, 0.05, 60)
    batches = follow(driver, positions, velocities)
    driver.halt()
    batches += [driver.advance(3) for _ in range(20)]
    again = ArmStand(robot)
    count = 0
    for batch in batches:
        assert batch.first_step == count
        count += len(batch.control)
        for control in batch.control:
            again.step(control)
        assert again.data.qpos.tobytes() == batch.qpos.tobytes()


def test_sensor_agrees_with_the_wrist_sensor_at_rest(stand: ArmStand, driver: MujocoRobot) -> None:
    """Two ways to the same force: contact forces beyond the wrist, and the raw sensor less the hand's weight."""
    push = np.array([1.0, -2.0, 3.0])
    stand.data.xfrc_applied[stand.model.body("hand").id, :3] = push
    driver.advance(600)
    wrench = driver.read().wrench_tcp
    down = np.diag([1.0, -1.0, -1.0])
    assert np.allclose(wrench[:3], down @ push, atol=1e-2)  # the push turns the hand a little
    raw = -stand.data.sensor("wrist_force").data
    turn = stand.data.site("wrist_ft").xmat.reshape(3, 3)
    mass = sum(stand.model.body(name).mass[0] for name in ("hand", "left_finger", "right_finger"))
    weight = turn.T @ np.array([0.0, 0.0, -GRAVITY * mass])
    assert np.allclose(raw - weight, wrench[:3], atol=2e-3)
    # The force acts on the hand's centre of mass, above the TCP: a lever.
    lever = stand.data.xipos[stand.model.body("hand").id] - stand.data.site_xpos[stand.index.tcp]
    assert np.allclose(wrench[3:], down @ np.cross(lever, push), atol=1e-2)


def test_fast_free_motion_feels_no_force(stand: ArmStand, driver: MujocoRobot) -> None:
    home = np.array(stand.robot.home)
    worst = 0.0
    for tick in range(200):
        phase = 2 * np.pi * 1.5 * tick * TICK_S
        swing = 0.15 * min(1.0, tick / 50)
        driver.write(command(home + swing * np.sin(phase), np.full(7, swing * 3 * np.pi * np.cos(phase))))
        driver.advance(STEPS)
        worst = max(worst, float(np.abs(driver.read().wrench_tcp[:3]).max()))
    assert worst < 0.5


def test_pressing_on_the_table_is_felt_upwards(stand: ArmStand, driver: MujocoRobot) -> None:
    home = np.array(stand.robot.home)
    pose = stand.tcp(home)
    position = home
    for height in np.linspace(0.25, 0.003, 300):
        position = stand.inverse(position, np.concatenate([pose[:2], [height], pose[3:]]))
        driver.write(command(position))
        driver.advance(STEPS)
    driver.advance(200)
    force = driver.read().wrench_tcp[:3]
    assert force[2] < -5  # the z axis of the TCP points down
    table = stand.model.geom("table").id
    total = 0.0
    for k, contact in enumerate(stand.data.contact):
        result = np.zeros(6)
        mujoco.mj_contactForce(stand.model, stand.data, k, result)
        total += result[0] * (table in contact.geom)
    assert -force[2] == pytest.approx(total, rel=0.01)


def test_holds_a_block_through_a_shake(robot: RobotConfig) -> None:
    stand = ArmStand(robot, block=True)
    driver = MujocoRobot(stand, robot)
    driver.connect()
    home = np.array(robot.home)
    stand.model.opt.gravity[:] = 0.0
    closing = np.linspace(1.0, 0.0, 160)
    for opening in closing:
        driver.write(command(home, gripper=float(opening)))
        driver.advance(STEPS)
    stand.model.opt.gravity[2] = -GRAVITY
    driver.advance(200)
    held = driver.read()
    assert held.gripper == pytest.approx(0.5, abs=0.02)
    assert held.wrench_tcp[2] == pytest.approx(BLOCK_MASS * GRAVITY, abs=0.02)
    assert np.abs(held.wrench_tcp[:2]).max() < 0.02
    before = _in_hand(stand)
    for tick in range(400):
        phase, swing = 2 * np.pi * 1.2 * tick * TICK_S, 0.08 * min(1.0, tick / 50)
        velocity = np.zeros(7)
        velocity[[0, 3]] = swing * 2 * np.pi * 1.2 * np.cos(phase)
        position = home.copy()
        position[[0, 3]] += swing * np.sin(phase)
        driver.write(command(position, velocity, 0.0))
        driver.advance(STEPS)
    driver.write(command(home, gripper=0.0))
    driver.advance(400)
    assert np.linalg.norm(_in_hand(stand) - before) < 0.001
    driver.write(command(home, gripper=1.0))
    driver.advance(300)
    assert stand.data.body("block").xpos[2] < 0.1  # and lets it go


def test_opening_is_measured_along_the_whole_stroke(driver: MujocoRobot, robot: RobotConfig) -> None:
    for opening in (0.0, 0.25, 0.8, 1.0):
        driver.write(command(np.array(robot.home), gripper=opening))
        driver.advance(400)
        assert driver.read().gripper == pytest.approx(opening, abs=0.01)


def test_brake_keeps_to_the_acceleration_limits_and_the_path(robot: RobotConfig) -> None:
    limits = np.array([joint.acceleration for joint in robot.joints])
    rng = np.random.default_rng(11)
    for _ in range(50):
        start, velocity = rng.normal(size=(2, 7))
        brake = Brake.plan(robot, start, velocity)
        times = np.linspace(0.0, brake.duration_s, 200)
        positions = np.array([brake.at(time)[0] for time in times])
        velocities = np.array([brake.at(time)[1] for time in times])
        step = times[1]
        assert np.all(np.abs(np.diff(velocities, axis=0)) / step <= ACCELERATION_SHARE * limits * (1 + 1e-6))
        assert np.allclose(
            np.diff(positions, axis=0) / step, (velocities[1:] + velocities[:-1]) / 2, atol=1e-9
        )
        assert np.allclose(velocities[-1], 0, atol=1e-12)
        moved = positions - start
        assert np.linalg.matrix_rank(moved, tol=1e-9) <= 1
        later = brake.at(brake.duration_s + 5.0)
        assert np.array_equal(later[0], brake.at(brake.duration_s)[0])
        assert not later[1].any()


def test_brake_of_an_arm_at_rest_holds() -> None:
    robot = load_robot("panda")
    brake = Brake.plan(robot, np.array(robot.home), np.zeros(7))
    assert brake.duration_s == 0
    assert np.array_equal(brake.at(0.1)[0], robot.home)


def test_halt_in_motion_stops_softly(driver: MujocoRobot, robot: RobotConfig) -> None:
    position, velocity = np.array(robot.home), np.zeros(7)
    for tick in range(100):
        velocity[0] = min(1.0, tick * 0.02)
        position[0] += velocity[0] * TICK_S
        driver.write(command(position, velocity))
        driver.advance(STEPS)
    speeds = [driver.read().joint_velocity]
    driver.halt()
    for _ in range(120):
        driver.advance(1)
        speeds.append(driver.read().joint_velocity)
    assert speeds[0][0] > 0.9
    limits = np.array([joint.acceleration for joint in robot.joints])
    assert np.all(np.abs(np.diff(speeds, axis=0)) / 0.0025 < limits)
    assert np.abs(speeds[-1]).max() < 0.01


def _in_hand(stand: ArmStand) -> F64:
    """(3,) where the block is, as seen from the TCP."""
    offset = stand.data.body("block").xpos - stand.data.site_xpos[stand.index.tcp]
    seen: F64 = stand.data.site_xmat[stand.index.tcp].reshape(3, 3).T @ offset
    return seen
