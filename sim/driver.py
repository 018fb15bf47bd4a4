"""The simulated arm as a `Robot`, under the virtual clock: `advance` moves time, nothing else does.

Writes what the servo law says to the model's servos and hands out every control for the log.
"""

from __future__ import annotations

from reflexarc.configs.errors import RobotError
from reflexarc.configs.robot import RobotConfig
from reflexarc.sim.drive import ArmDrive, Steppable
from reflexarc.sim.sensors import ArmSensors
from reflexarc.wire.messages import JointCommand, Measured, SimSteps


class MujocoRobot:
    """A `Robot` whose time passes only in `advance`."""

    def __init__(self, world: Steppable, config: RobotConfig) -> None:
        """Drive the arm in `world`. Raises SimulationError if its model lacks something that `config` names."""
        self._world = world
        self._config = config
        self._sensors = ArmSensors(world.model, world.data, config)
        self._drive = ArmDrive(world.model, world.data, config, self._sensors.index)
        self._step_ns: int = round(world.model.opt.timestep * 1e9)
        self._connected = False
        self._steps = 0

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the joints, in the order of every array."""
        return self._config.joint_names

    @property
    def now_ns(self) -> int:
        """Simulated time since the last reset."""
        return self._steps * self._step_ns

    def connect(self) -> None:
        """Take the world's present state as the beginning."""
        self._connected = True
        self.reset()

    def reset(self) -> None:
        """Take the world's present state as the beginning, at time 0: hold there."""
        self._steps = 0
        self._drive.reset()
        self._sensors.reset()

    def read(self) -> Measured:
        """The sensors now; raises RobotError if not connected."""
        self._check_connected()
        return self._sensors.read(self.now_ns)

    def write(self, command: JointCommand) -> None:
        """Hand one filtered command to the servos; raises RobotError on a wrong shape or a number not finite."""
        self._check_connected()
        self._drive.command(command)

    def advance(self, steps: int) -> SimSteps:
        """Let `steps` physics steps pass under the present command; returns their controls for the log."""
        world = self._world
        first = self._steps
        controls = self._drive.run(world, self._sensors, steps)
        self._steps += steps
        return SimSteps(
            t_ns=self.now_ns,
            clock="virtual",
            first_step=first,
            control=controls,
            qpos=world.data.qpos.copy(),
            qvel=world.data.qvel.copy(),
        )

    def halt(self) -> None:
        """Brake to rest within the joints' acceleration limits, and hold."""
        self._drive.halt()

    def close(self) -> None:
        """Halt and disconnect; safe to call twice."""
        if self._connected:
            self.halt()
            self._connected = False

    def _check_connected(self) -> None:
        if not self._connected:
            raise RobotError(f"the simulated {self._config.name} is not connected; call connect() first")
