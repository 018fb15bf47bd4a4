"""The driver of the simulated arm in the robot host: an arm process at the other end of two sockets.

It neither steps physics nor filters; it passes commands on and hands out the newest reading.
"""

from __future__ import annotations

import numpy as np

from reflexarc.configs.errors import RobotError
from reflexarc.configs.robot import RobotConfig
from reflexarc.sim.drive import check_command
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import ArmCommand, ArmState, JointCommand, Measured, Message
from reflexarc.wire.sockets import Push, Subscriber

FOLLOW_S = 0.1
"""An arm that is sent commands and still brakes after this long does not follow them."""


class ArmClient:
    """A `Robot` whose device is `sim.arm_process`."""

    def __init__(self, robot: RobotConfig, endpoints: Endpoints, *, connect_s: float = 30.0) -> None:
        """connect_s: how long `connect` waits for the arm; compiling its model on a busy machine takes seconds."""
        self._robot = robot
        self._endpoints = endpoints
        self._connect_s = connect_s
        self._grace = round(FOLLOW_S * robot.tick_hz)
        self._push: Push | None = None
        self._states: Subscriber[Message] | None = None
        self._state: ArmState | None = None
        self._seq = 0
        self._ignored = 0

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the joints, in the order of every array."""
        return self._robot.joint_names

    def connect(self) -> None:
        """Wait until the arm sends its state and takes commands; RobotError naming the address if it does not."""
        self._push = Push(self._endpoints.arm_command, name="commands to the simulated arm", queue=8)
        self._states = Subscriber(self._endpoints.arm_state, Message, name="state of the simulated arm")
        deadline = monotonic_ns() + round(self._connect_s * 1e9)
        while self._state is None or not self._push.send(self._halt_command()):
            if monotonic_ns() > deadline:
                where = self._states.address
                self.close()
                raise RobotError(f"the simulated arm at {where} did not answer within {self._connect_s} s")
            self._states.wait(0.01)
            self._take_newest()

    def read(self) -> Measured:
        """The newest reading; its `t_ns` is the arm's time, so it ages while the arm is silent."""
        self._take_newest()
        state = self._state
        if state is None:
            raise self._not_connected()
        return Measured(
            t_ns=state.t_ns,
            joint_position=state.joint_position.copy(),
            joint_velocity=state.joint_velocity.copy(),
            joint_effort=state.joint_effort.copy(),
            wrench_tcp=state.wrench_tcp.copy(),
            gripper=state.gripper,
        )

    def write(self, command: JointCommand) -> None:
        """Send one filtered command. Raises RobotError if it is malformed, or if the arm brakes and does not follow."""
        if self._push is None or self._state is None:
            raise self._not_connected()
        check_command(command, self._robot)
        self._seq += 1
        message = ArmCommand(
            t_ns=monotonic_ns(),
            seq=self._seq,
            joint_position=command.joint_position,
            joint_velocity=command.joint_velocity,
            gripper=command.gripper,
            servo_input=command.servo_input,
        )
        if not self._push.send(message):
            raise RobotError(f"the simulated arm at {self._push.address} takes no commands")
        self._ignored = self._ignored + 1 if self._state.braked else 0
        if self._ignored > self._grace:
            raise RobotError("the simulated arm has braked and does not follow its commands")

    def halt(self) -> None:
        """Tell the arm to brake; one that does not hear it brakes when it misses its commands."""
        self._ignored = 0
        if self._push is not None and self._state is not None:
            self._push.send(self._halt_command())

    def close(self) -> None:
        """Halt and release the sockets; safe to call twice."""
        self.halt()
        for socket in (self._push, self._states):
            if socket is not None:
                socket.close()
        self._push, self._states, self._state = None, None, None

    def _take_newest(self) -> None:
        if self._states is None:
            raise self._not_connected()
        for message in self._states.drain():
            if isinstance(message, ArmState) and message.joint_position.shape == (len(self.joint_names),):
                self._state = message

    def _halt_command(self) -> ArmCommand:
        self._seq += 1
        n = len(self.joint_names)
        position = np.zeros(n) if self._state is None else self._state.joint_position
        gripper = 0.0 if self._state is None else self._state.gripper
        return ArmCommand(
            t_ns=monotonic_ns(),
            seq=self._seq,
            joint_position=position,
            joint_velocity=np.zeros(n),
            gripper=gripper,
            halt=True,
        )

    def _not_connected(self) -> RobotError:
        return RobotError(f"the simulated {self._robot.name} is not connected; call connect() first")
