"""The simulated arm in real time, without its sockets: physics that follows the clock, and a brake of its own.

It stands for the robot's own control box. What it hears it judges: a command that jumps is refused, and when commands
stop coming it brakes by itself and holds, whatever has become of the robot host. The clock is handed in.
"""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np

from reflexarc.configs.errors import RobotError
from reflexarc.configs.robot import RobotConfig
from reflexarc.sim import shutter
from reflexarc.sim.drive import ArmDrive, check_command
from reflexarc.sim.sensors import ArmSensors
from reflexarc.sim.world import World
from reflexarc.wire.messages import (
    ArmCommand,
    ArmState,
    Event,
    JointCommand,
    Message,
    SimInitial,
    SimSteps,
)

SILENCE_NS = 100_000_000
"""Without a command for this long the arm brakes by itself."""

JUMP_RAD = 0.1
"""A command further than this from the one before is refused."""

RESUME_RAD = 0.02
RESUME_RAD_S = 0.25
"""Once braked, the arm follows again only from where it is and from rest: position and velocity this near."""

CATCH_UP_NS = 100_000_000
"""After a pause of the process longer than this the time is lost, rather than made up for by a burst of steps."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Stage:
    """One task's world with the arm in it."""

    world: World
    sensors: ArmSensors
    drive: ArmDrive


class SimulatedArm:
    """One arm and the worlds it is put into. Every `now_ns` is of the monotonic clock."""

    def __init__(self, robot: RobotConfig, task: str, seed: int) -> None:
        """As after a `reset`. Raises SimulationError for an unknown task."""
        self._robot = robot
        self._stages: dict[str, _Stage] = {}
        self._events: list[Event] = []
        self._seq = 0
        self._episode = 0
        self._stopped = False
        self.lost_ns = 0
        """Time that was skipped because the process was not run, in all."""
        self.reset(task, seed)

    @property
    def world(self) -> World:
        """The present world."""
        return self._stage.world

    @property
    def time_ns(self) -> int:
        """Simulated time since the reset."""
        return self._steps * self._step_ns

    @property
    def braked(self) -> bool:
        """Whether the brake is on."""
        return self._stage.drive.braked

    def reset(self, task: str, seed: int) -> None:
        """Lay out a world anew, the arm at home with its brake on; `begin` must follow.

        May take a second where the task is new. Raises SimulationError for an unknown task, nothing is changed then.
        """
        if task not in self._stages:
            self._stages[task] = self._build(task)
        self._stage = self._stages[task]
        self.world.reset(seed)
        self._stage.drive.reset()
        self._stage.sensors.reset()
        self._stage.drive.halt()
        self._step_ns: int = round(self.world.model.opt.timestep * 1e9)
        self._steps = 0
        self._episode += 1
        self._refusing = False

    def begin(self, now_ns: int) -> tuple[Message, ...]:
        """Let time pass from `now_ns` on. Returns what to publish: the initial state and the truth at it."""
        self._origin_ns = now_ns
        self._command_ns = now_ns
        initial: SimInitial = msgspec.structs.replace(self.world.initial(), t_ns=now_ns, clock="monotonic")
        return initial, self._truth(now_ns)

    def command(self, command: ArmCommand, now_ns: int) -> bool:
        """Follow a command, or refuse it: wrong shape, not finite, out of range, or a jump."""
        self._command_ns = now_ns
        drive = self._stage.drive
        if command.halt or self._stopped:
            drive.halt()
            return not self._stopped
        wanted = JointCommand(
            joint_position=command.joint_position,
            joint_velocity=command.joint_velocity,
            gripper=command.gripper,
            servo_input=command.servo_input,
        )
        reason = self._reason_to_refuse(wanted)
        if not reason:
            drive.command(wanted)
        elif not self._refusing:
            self._note(now_ns, "arm_refused", reason)
        self._refusing = bool(reason)
        return not reason

    def stop(self, stop: bool, reason: str, now_ns: int) -> None:
        """The stop input: brake and follow no command; or let them count again, which moves nothing."""
        if stop and not self._stopped:
            self._note(now_ns, "arm_stopped", f"stop input: {reason}")
        if stop:
            self._stage.drive.halt()
        self._stopped = stop

    def advance(self, now_ns: int) -> tuple[Message, ...]:
        """Let physics catch up with the clock. Returns what to publish: steps, truth at a shutter, events, state."""
        self._skip_lost_time(now_ns)
        self._watch_silence(now_ns)
        due = (now_ns - self._origin_ns) // self._step_ns - self._steps
        messages: list[Message] = []
        if due > 0:
            steps = self._step(due, now_ns)
            messages.append(steps)
            if shutter.opens(steps.first_step, due, self._step_ns):
                messages.append(self._truth(now_ns))
        messages.extend(self._events)
        self._events.clear()
        messages.append(self._state(now_ns))
        return tuple(messages)

    def _build(self, task: str) -> _Stage:
        world = World(task, self._robot)
        sensors = ArmSensors(world.model, world.data, self._robot)
        return _Stage(world, sensors, ArmDrive(world.model, world.data, self._robot, sensors.index))

    def _reason_to_refuse(self, command: JointCommand) -> str:
        """Why a command is not followed, in words; empty if it is."""
        drive = self._stage.drive
        try:
            check_command(command, self._robot)
        except RobotError as error:
            return str(error)
        limit = RESUME_RAD if drive.braked else JUMP_RAD
        jumps = np.abs(command.joint_position - drive.position)
        worst = int(np.argmax(jumps))
        if jumps[worst] > limit:
            name = self._robot.joint_names[worst]
            return f"joint {name}: a jump of {jumps[worst]:.3f} rad, the limit is {limit} rad{self._where()}"
        if drive.braked:
            change = float(np.max(np.abs(command.joint_velocity - drive.velocity)))
            if change > RESUME_RAD_S:
                return f"a change of {change:.2f} rad/s, the limit is {RESUME_RAD_S} rad/s{self._where()}"
        return ""

    def _where(self) -> str:
        return " once braked" if self.braked else ""

    def _skip_lost_time(self, now_ns: int) -> None:
        behind = now_ns - self._origin_ns - self.time_ns
        if behind > CATCH_UP_NS:
            self.lost_ns += behind
            self._note(now_ns, "arm_paused", f"{behind * 1e-9:.3f} s were lost: the process was not run")
            self._origin_ns += behind

    def _watch_silence(self, now_ns: int) -> None:
        silent_ns = now_ns - self._command_ns
        if silent_ns > SILENCE_NS and not self.braked:
            self._stage.drive.halt()
            self._note(now_ns, "arm_braked", f"no command for {silent_ns * 1e-9:.3f} s: braking by itself")

    def _step(self, count: int, now_ns: int) -> SimSteps:
        world = self.world
        controls = self._stage.drive.run(world, self._stage.sensors, count)
        first = self._steps
        self._steps += count
        return SimSteps(
            t_ns=now_ns,
            first_step=first,
            control=controls,
            qpos=world.data.qpos.copy(),
            qvel=world.data.qvel.copy(),
        )

    def _truth(self, now_ns: int) -> Message:
        return msgspec.structs.replace(self.world.truth(now_ns), clock="monotonic")

    def _state(self, now_ns: int) -> ArmState:
        measured = self._stage.sensors.read(now_ns)
        self._seq += 1
        return ArmState(
            t_ns=now_ns,
            seq=self._seq,
            joint_position=measured.joint_position,
            joint_velocity=measured.joint_velocity,
            joint_effort=measured.joint_effort,
            wrench_tcp=measured.wrench_tcp,
            gripper=measured.gripper,
            braked=self.braked,
            episode_seq=self._episode,
        )

    def _note(self, now_ns: int, kind: str, text: str) -> None:
        self._events.append(Event(t_ns=now_ns, kind=kind, source="arm", text=text))
