"""What the simulated arm's motors tell is what they did: nothing is felt in free motion, and a push is found."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from reflexarc.configs.load import load_robot, load_safety
from reflexarc.configs.robot import RobotConfig
from reflexarc.safety.contact import NOTHING_FELT, Contact, Touch
from reflexarc.sim.arm import ArmIndex, load_arm_spec
from reflexarc.sim.driver import MujocoRobot
from reflexarc.wire.messages import F64, JointCommand

PUSH = np.array([0.0, 30.0, 0.0])
"""N, in the base frame."""


class Bench:
    """An arm alone, moved to and fro at full acceleration; its contact rule watches."""

    def __init__(self, robot: RobotConfig) -> None:
        spec = load_arm_spec(robot)
        spec.option.timestep = 0.0025
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self.robot = robot
        self.index = ArmIndex.find(self.model, robot)
        self.index.place(self.model, self.data, np.array(robot.home), 1.0)
        mujoco.mj_forward(self.model, self.data)
        self.driver = MujocoRobot(self, robot)
        self.driver.connect()
        self.contact = Contact(robot, load_safety("panda"))

    def step(self, control: F64) -> None:
        """One physics step."""
        self.data.ctrl[:] = control
        mujoco.mj_step(self.model, self.data)

    def swing(self, seconds: float) -> list[Touch]:
        """What is felt at each tick while the joints swing, reversing at once."""
        home = np.array(self.robot.home)
        tick_s, touch, felt = self.robot.tick_ns * 1e-9, NOTHING_FELT, []
        acceleration = 0.3 * np.array([joint.acceleration for joint in self.robot.joints])
        acceleration[1::2] *= -1
        position, velocity = home.copy(), np.zeros_like(home)
        for tick in range(round(seconds / tick_s)):
            sign = 1.0 if tick % 80 < 20 or tick % 80 >= 60 else -1.0
            velocity = velocity + sign * acceleration * tick_s
            position = position + velocity * tick_s
            touch = self.feel(touch, position, velocity)
            felt.append(touch)
        return felt

    def feel(self, touch: Touch, position: F64, velocity: F64) -> Touch:
        """One tick at these joints' command."""
        self.driver.write(JointCommand(joint_position=position, joint_velocity=velocity, gripper=1.0))
        self.driver.advance(2)
        jacobian, quat = np.zeros((3, 7)), np.array([1.0, 0.0, 0.0, 0.0])
        return self.contact.feel(touch, self.driver.read(), jacobian, quat)

    def torque_of(self, body: str) -> F64:
        """(n,) N·m that `PUSH` at this body's centre of mass puts on the joints."""
        rows = np.zeros((3, self.model.nv))
        mujoco.mj_jacBodyCom(self.model, self.data, rows, None, self.model.body(body).id)
        return np.array((rows.T @ PUSH)[self.index.dof])


@pytest.fixture
def bench() -> Bench:
    return Bench(load_robot("panda"))


def residuals(felt: list[Touch]) -> F64:
    return np.array([touch.residual for touch in felt[20:]])


def test_nothing_is_felt_in_free_motion(bench: Bench) -> None:
    """The explicit torque that MuJoCo tells would be several N·m off whenever the arm reverses."""
    felt = bench.swing(2.0)
    assert np.ptp([touch.velocity for touch in felt], axis=0).max() > 0.5
    assert np.abs(residuals(felt)).max() < 0.5


def test_a_push_on_a_link_is_found_to_the_newton_metre(bench: Bench) -> None:
    bench.data.xfrc_applied[bench.model.body("link5").id, :3] = PUSH
    touch = NOTHING_FELT
    for _ in range(200):
        touch = bench.feel(touch, np.array(bench.robot.home), np.zeros(7))
    assert touch.residual is not None
    np.testing.assert_allclose(-touch.residual, bench.torque_of("link5"), atol=0.3)
    assert touch.rule == "joint_torque"
    assert touch.load > 1


def test_a_push_on_the_tool_is_the_wrists_to_judge(bench: Bench) -> None:
    bench.data.xfrc_applied[bench.model.body("hand").id, :3] = PUSH
    touch = NOTHING_FELT
    for _ in range(200):
        touch = bench.feel(touch, np.array(bench.robot.home), np.zeros(7))
    assert touch.residual is not None
    assert np.abs(bench.torque_of("hand")).max() > 10
    assert np.abs(touch.residual).max() < 0.3
    assert touch.rule == "wrist_force"
    assert touch.asked == pytest.approx(30, abs=0.5)
