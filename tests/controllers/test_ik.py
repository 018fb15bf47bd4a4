"""Kinematics of the arm: agreement with the full model, targets reached, limits kept, failures told."""

from __future__ import annotations

import mink
import mujoco
import numpy as np
import pytest

from contracts.controller_bench import panda
from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.errors import ControlError
from reflexarc.configs.load import resolve_asset
from reflexarc.controllers.gauss_newton import FAR_DAMPING, LEVER_M, POSTURE_PER_M
from reflexarc.controllers.ik import (
    ITERATIONS,
    LIMIT_MARGIN_RAD,
    REACHED_M,
    REACHED_RAD,
    ArmKinematics,
    IkStatus,
    arm_model,
)
from reflexarc.wire import geometry
from reflexarc.wire.messages import F64

ROBOT = panda()
HOME = np.array(ROBOT.home)
LOWER = np.array([joint.lower for joint in ROBOT.joints])
UPPER = np.array([joint.upper for joint in ROBOT.joints])
SPEED = np.array([joint.velocity for joint in ROBOT.joints])
PERIOD_S = 0.01


@pytest.fixture(scope="module")
def arm() -> ArmKinematics:
    return ArmKinematics(ROBOT, ControllerConfig())


def near_home(seed: int, spread: float = 0.3) -> F64:
    drawn = HOME + np.random.default_rng(seed).uniform(-spread, spread, len(HOME))
    result: F64 = np.clip(drawn, LOWER + 0.1, UPPER - 0.1)
    return result


@pytest.mark.parametrize("seed", range(5))
def test_forward_is_the_full_models_tcp(arm: ArmKinematics, seed: int) -> None:
    joints = near_home(seed, 1.0)
    model = mujoco.MjModel.from_xml_path(str(resolve_asset(ROBOT.mjcf)))
    data = mujoco.MjData(model)
    for name, value in zip(ROBOT.joint_names, joints, strict=True):
        data.joint(name).qpos[0] = value
    mujoco.mj_kinematics(model, data)
    pose = arm.forward(joints)
    site = data.site(ROBOT.tcp_site)
    np.testing.assert_allclose(pose[:3], site.xpos, atol=1e-12)
    np.testing.assert_allclose(geometry.to_matrix(pose[3:]), site.xmat.reshape(3, 3), atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_twist_is_the_rate_of_the_pose(arm: ArmKinematics, seed: int) -> None:
    joints, speeds = near_home(seed), near_home(seed + 50, 1.0)
    h = 1e-6
    before, after = arm.forward(joints - h * speeds), arm.forward(joints + h * speeds)
    twist = arm.twist(joints, speeds)
    np.testing.assert_allclose(twist, geometry.delta_between(before, after) / (2 * h), atol=1e-6)
    again = arm.velocity(joints, np.zeros(7), twist)
    np.testing.assert_allclose(arm.twist(joints, again), twist, atol=1e-3)
    np.testing.assert_allclose(arm.velocity(joints, speeds, twist), speeds, atol=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_targets_are_reached_within_the_joints_speed(arm: ArmKinematics, seed: int) -> None:
    target, joints = arm.forward(near_home(seed)), HOME
    for _ in range(300):
        found = arm.solve(target, joints, PERIOD_S)
        assert found.status is not IkStatus.FAILED
        assert np.all(np.abs(found.joint_position - joints) <= SPEED * PERIOD_S * (1 + 1e-9))
        joints = found.joint_position
    assert found.status is IkStatus.REACHED
    assert found.error_m < REACHED_M
    assert found.error_rad < REACHED_RAD
    error = geometry.delta_between(arm.forward(joints), target)
    np.testing.assert_allclose(error, 0.0, atol=REACHED_RAD)
    assert np.linalg.norm(error[:3]) < REACHED_M


@pytest.mark.parametrize("spread", [0.01, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_the_joints_move_as_mink_would_move_them(seed: int, spread: float) -> None:
    """The same tasks, weights and bounds in mink, with a pull to the posture that shows; far: at top speed."""
    config = ControllerConfig(ik_posture_cost=0.03)
    arm, start = ArmKinematics(ROBOT, config), near_home(seed)
    goal = arm.forward(start + np.random.default_rng(seed).uniform(-spread, spread, len(start)))
    moved = arm.solve(goal, start, PERIOD_S).joint_position - start
    share = np.max(np.abs(moved) / (SPEED * PERIOD_S))
    assert (share == pytest.approx(1.0)) == (spread > 0.1)
    # Far off, the second order shows in which a twist differs from a way and a rotation vector.
    np.testing.assert_allclose(moved, by_mink(goal, start, config), atol=1e-4 if spread < 0.1 else 5e-4)
    if spread < 0.1:
        assert np.max(np.abs(moved - by_mink(goal, start, ControllerConfig()))) > 5e-4


def by_mink(goal: F64, start: F64, config: ControllerConfig) -> F64:
    """How far mink moves the joints (n,) towards `goal` (7,) in the base frame, which is the world's here."""
    model = arm_model(ROBOT)
    configuration = mink.Configuration(model, start)
    frame = mink.FrameTask(
        ROBOT.tcp_site, "site", position_cost=1.0, orientation_cost=1.0, lm_damping=FAR_DAMPING
    )
    frame.set_target(mink.SE3(np.concatenate([goal[3:], goal[:3]])))
    home = mink.PostureTask(model, cost=config.ik_posture_cost)
    home.set_target(HOME)
    error = geometry.delta_between(arm_pose(configuration), goal)
    travel = np.linalg.norm(error[:3]) + LEVER_M * np.linalg.norm(error[3:])
    home.gain = min(1.0, POSTURE_PER_M * float(travel))
    limits = [
        mink.ConfigurationLimit(model, gain=1.0, min_distance_from_limits=LIMIT_MARGIN_RAD),
        mink.VelocityLimit(model, {joint.name: joint.velocity for joint in ROBOT.joints}),
    ]
    for _ in range(ITERATIONS):
        velocity = mink.solve_ik(
            configuration, [frame, home], PERIOD_S, "daqp", damping=config.ik_damping, limits=limits
        )
        configuration.integrate_inplace(velocity, PERIOD_S)
        home.gain = 0.0
    moved: F64 = configuration.q - start
    return moved / max(1.0, float(np.max(np.abs(moved) / (SPEED * PERIOD_S))))


def arm_pose(configuration: mink.Configuration) -> F64:
    """The TCP's pose (7,) in the world."""
    there = configuration.get_transform_frame_to_world(ROBOT.tcp_site, "site")
    return geometry.pose(there.translation(), there.rotation().wxyz)


def test_a_target_out_of_reach_is_a_status_and_keeps_the_limits(arm: ArmKinematics) -> None:
    target = arm.forward(HOME)
    target[0] = 2.0
    joints = HOME
    for _ in range(300):
        found = arm.solve(target, joints, PERIOD_S)
        joints = found.joint_position
        assert np.all(joints > LOWER + LIMIT_MARGIN_RAD - 1e-6)
        assert np.all(joints < UPPER - LIMIT_MARGIN_RAD + 1e-6)
    assert found.status is IkStatus.SINGULAR  # the arm is stretched out
    assert found.error_m > 0.5


@pytest.mark.parametrize("joint", range(7))
def test_a_start_outside_the_limits_is_no_failure_and_leads_no_further_out(
    arm: ArmKinematics, joint: int
) -> None:
    joints = HOME.copy()
    joints[joint] = UPPER[joint] + 0.05
    start = joints.copy()
    target = arm.forward(HOME)
    for _ in range(200):
        found = arm.solve(target, joints, PERIOD_S)
        assert found.status is not IkStatus.FAILED
        joints = found.joint_position
        assert joints[joint] <= start[joint] + 1e-9


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numbers_that_make_no_sense_fail_and_keep_the_seed(arm: ArmKinematics, value: float) -> None:
    target = arm.forward(HOME)
    target[1] = value
    found = arm.solve(target, HOME, PERIOD_S)
    assert found.status is IkStatus.FAILED
    np.testing.assert_array_equal(found.joint_position, HOME)
    # And the next good one is unharmed.
    assert arm.solve(arm.forward(HOME), HOME, PERIOD_S).status is IkStatus.REACHED


def test_standing_still_moves_no_joint_away(arm: ArmKinematics) -> None:
    joints = near_home(3)
    target = arm.forward(joints)
    start = joints
    for _ in range(100):
        joints = arm.solve(target, joints, PERIOD_S).joint_position
    np.testing.assert_allclose(joints, start, atol=1e-3)


def test_solving_is_deterministic() -> None:
    results = []
    for _ in range(2):
        arm = ArmKinematics(ROBOT, ControllerConfig())
        joints = HOME
        for k in range(50):
            target = arm.forward(HOME)
            target[0] += 0.002 * k
            joints = arm.solve(target, joints, PERIOD_S).joint_position
        results.append(joints)
    np.testing.assert_array_equal(results[0], results[1])


def test_wrong_names_are_told_with_what_there_is() -> None:
    wrong = ROBOT.model_copy(update={"tcp_site": "tip"})
    with pytest.raises(ControlError, match=r"unknown TCP site 'tip'; known: .*tcp"):
        ArmKinematics(wrong, ControllerConfig())
    wrong = ROBOT.model_copy(update={"base_body": "floor"})
    with pytest.raises(ControlError, match=r"unknown base body 'floor'; known: .*link0"):
        ArmKinematics(wrong, ControllerConfig())
    joints = (ROBOT.joints[0].model_copy(update={"name": "elbow"}), *ROBOT.joints[1:])
    with pytest.raises(ControlError, match=r"has joints joint2, .* panda has elbow, joint2"):
        ArmKinematics(ROBOT.model_copy(update={"joints": joints}), ControllerConfig())
