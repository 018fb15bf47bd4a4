"""The robot host: owns one driver and the safety filter, and is the only one that writes to the driver.

One `tick` reads the driver, filters the newest setpoint, writes the result and says what happened. It knows nothing of
sockets and reads no clock: the same class runs in lockstep with a simulator and in the real-time process.
"""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np

from reflexarc.configs.errors import ReflexarcError, RobotError
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.robots.servo import open_servo, with_input
from reflexarc.safety.filter import SafetyFilter
from reflexarc.safety.intake import chunk_age_ns
from reflexarc.safety.memory import Memory
from reflexarc.safety.states import LATCHED
from reflexarc.wire.contracts import Robot
from reflexarc.wire.messages import (
    F64,
    SPEED_EVENT,
    Event,
    HostReply,
    HostRequest,
    Intervention,
    JointCommand,
    Measured,
    SafetyReport,
    SafetyState,
    Setpoint,
    State,
)

LATEST_NS = 2**63 - 1
"""The largest number that a message's time can be."""


def cause(rule: str, field: str, asked: float = 0.0, allowed: float = 0.0) -> Intervention:
    """The record of a stop whose cause lies outside the filter; without numbers where there are none."""
    return Intervention(rule=rule, field=field, asked=asked, allowed=allowed, margin=allowed - asked)


@dataclasses.dataclass(frozen=True, slots=True)
class HostTick:
    """What one tick yields. report is None if nothing was limited and the state did not change."""

    state: State
    report: SafetyReport | None
    events: tuple[Event, ...]


class RobotHost:
    """Drives `robot`, which must be connected before the first tick; once started, never raises for what a driver does.

    Whatever kind of error a driver raises is a fault of the driver: the host must live to stop the arm.
    """

    def __init__(self, robot: Robot, config: RobotConfig, safety: SafetyConfig, clock: str) -> None:
        """clock: name of the clock of every `now_ns`. RobotError if the driver's joints are not the config's."""
        if tuple(robot.joint_names) != config.joint_names:
            raise RobotError(
                f"driver has joints {', '.join(robot.joint_names)}; robot {config.name!r} has "
                f"{', '.join(config.joint_names)}"
            )
        self._robot = robot
        n = len(config.joints)
        self._shapes = {"joint_position": n, "joint_velocity": n, "joint_effort": n, "wrench_tcp": 6}
        self._clock = clock
        self._filter = SafetyFilter(config, safety, clock)
        self._servo = open_servo(config, safety)
        self._stop_category = config.stop_category
        self._memory: Memory | None = None

    @property
    def memory(self) -> Memory | None:
        """The filter's memory, for whoever watches; None before the first tick or restart."""
        return self._memory

    def restart(self, now_ns: int) -> None:
        """Forget everything and stand `ready` where the arm is now: for a new episode in simulation.

        Raises RobotError if the driver gives no reading, SafetyError if the reading is not finite.
        """
        self._measured = self._robot.read()
        self._memory = self._filter.start(self._measured, now_ns)
        self._pose = self._memory.view.pose
        self._servo.begin(self._memory.position)
        self._halted = False
        self._faults: dict[str, str] = {}
        self._seq = 0
        self._events: list[Event] = []
        self._causes: list[Intervention] = []

    def tick(self, now_ns: int, setpoint: Setpoint | None) -> HostTick:
        """Read, filter, write. `setpoint` is the newest that arrived, new or not; `now_ns` must not go back."""
        if self._memory is None:
            self.restart(now_ns)
        assert self._memory is not None
        self._read(now_ns)
        command, self._memory, report = self._filter.filter(self._memory, self._measured, setpoint, now_ns)
        causes, self._causes = self._causes, []
        cut = self._write(now_ns, command)
        # What stopped the arm from outside the filter is on record as a rule, too, and so is what the servo was not
        # sent. The filter's own rules come last: see `latched_by`.
        found = [*cut, *causes, *report.interventions]
        report = msgspec.structs.replace(report, interventions=found)
        state = self._state(now_ns, self._memory)
        if report.state != report.previous_state:
            text = f"{report.previous_state} -> {report.state}: {report.reason}"
            self._note(now_ns, "safety_state", text)
        events, self._events = tuple(self._events), []
        worth = report.interventions or report.state != report.previous_state
        return HostTick(state=state, report=report if worth else None, events=events)

    def request(self, request: HostRequest) -> HostReply:
        """Answer the local console. Never causes motion."""
        if self._memory is None:
            return self._reply(request, ok=False, safety="off", text="the host has not started")
        before = self._memory.state
        if request.action != "e_stop" and request.from_state not in (None, before):
            return self.refuse(
                request, f"{request.action} was asked for in {request.from_state}, and it is {before} now"
            )
        if request.action == "speed":
            return self._set_speed(request)
        self._memory, ok, text = self._filter.request(self._memory, request.action, request.t_ns)
        if self._memory.state == "e_stop" and before != "e_stop":
            self._causes.append(cause("e_stop", request.source))
        if request.action != "status":
            verdict = "granted" if ok else "refused"
            self._note(request.t_ns, "request", f"{request.action} by {request.source} {verdict}: {text}")
        return self._reply(request, ok=ok, safety=self._memory.state, text=text)

    def _set_speed(self, request: HostRequest) -> HostReply:
        """Tell the controller its pace. Safety's limits stay as they are, whatever the controller makes of it."""
        assert self._memory is not None
        scale, safety = request.speed_scale, self._memory.state
        if not 0.0 < scale <= 1.0:
            text = f"speed_scale is {scale:g}, it must be above 0 and at most 1"
            return self._reply(request, ok=False, safety=safety, text=text)
        text = f"speed: {scale:g} of the policy's own, by {request.source}"
        self._note(request.t_ns, SPEED_EVENT, text, scale=scale)
        return self._reply(request, ok=True, safety=safety, text=text)

    def refuse(self, request: HostRequest, reason: str) -> HostReply:
        """Answer the console that this is not granted, and note it."""
        self._note(request.t_ns, "request", f"{request.action} by {request.source} refused: {reason}")
        safety = "off" if self._memory is None else self._memory.state
        return self._reply(request, ok=False, safety=safety, text=reason)

    def trip(self, reason: str, why: Intervention) -> None:
        """Latch a protective stop for a cause outside the filter's sight; `why` goes on record with it."""
        before = self._memory
        if before is not None:
            self._memory = self._filter.trip(before, reason)
            if self._memory.state != before.state:
                self._causes.append(why)

    @property
    def at_rest(self) -> bool:
        """Whether the commanded motion has come to rest."""
        return self._memory is None or self._memory.at_rest

    def _read(self, now_ns: int) -> None:
        """The newest reading; a driver that fails keeps its last one, whose age the filter judges."""
        try:
            measured = self._robot.read()
            self._check(measured)
        except Exception as error:
            self._report_fault(now_ns, "read", _said(error))
        else:
            self._measured = measured
            self._faults.pop("read", None)

    def _check(self, measured: Measured) -> None:
        """Raises RobotError if an array of a reading has a wrong shape."""
        for name, size in self._shapes.items():
            if getattr(measured, name).shape != (size,):
                raise RobotError(f"{name} has shape {getattr(measured, name).shape}; it must be ({size},)")

    def _write(self, now_ns: int, command: JointCommand) -> tuple[Intervention, ...]:
        """Send it on; what the servo's limits cut from it."""
        assert self._memory is not None
        at_once = self._stop_category == 0 and self._memory.state in LATCHED
        cut: tuple[Intervention, ...] = ()
        try:
            if at_once or self._filter.released(self._memory):
                if not self._halted:
                    self._robot.halt()
                    self._servo.begin(self._measured.joint_position)
                    self._halted = True
                    self._note(now_ns, "halt", f"arm holds by its own brakes ({self._memory.state})")
            else:
                served, cut = self._served(command)
                self._robot.write(served)
                self._halted = False
        except Exception as error:
            self._report_fault(now_ns, "written", _said(error))
            self.trip(f"driver cannot be written: {_said(error)}", cause("driver_write", "driver"))
            self._memory = self._filter.placed(
                self._memory, self._measured.joint_position, self._measured.t_ns
            )
        else:
            self._faults.pop("written", None)
        return cut

    def _served(self, command: JointCommand) -> tuple[JointCommand, tuple[Intervention, ...]]:
        """The command with what the arm's servo is sent for it, and what was cut. SafetyError if that is not finite."""
        measured = self._measured
        served = with_input(self._servo, command, measured.joint_position, measured.joint_velocity)
        return served, self._servo.cut

    def _report_fault(self, now_ns: int, what: str, text: str) -> None:
        """Note what the driver says, once for as long as it says the same."""
        if self._faults.get(what) != text:
            self._faults[what] = text
            self._note(now_ns, "driver_fault", f"driver cannot be {what}: {text}")

    def _state(self, now_ns: int, memory: Memory) -> State:
        measured = self._measured
        self._seq += 1
        return State(
            t_ns=now_ns,
            clock=self._clock,
            seq=self._seq,
            t_state_ns=measured.t_ns,
            joint_position=measured.joint_position,
            joint_velocity=measured.joint_velocity,
            joint_effort=measured.joint_effort,
            joint_position_commanded=memory.position,
            joint_velocity_commanded=memory.velocity,
            pose_base_tcp=self._measured_pose(measured),
            pose_base_tcp_commanded=memory.view.pose,
            wrench_tcp=measured.wrench_tcp,
            gripper=measured.gripper,
            gripper_commanded=memory.gripper,
            safety=memory.state,
            chunk_age_ns=-1 if memory.last is None else min(chunk_age_ns(memory.last, now_ns), LATEST_NS),
        )

    def _measured_pose(self, measured: Measured) -> F64:
        """Pose of the TCP as measured; the last good one while a reading is not finite."""
        if np.isfinite(measured.joint_position).all():
            self._pose = self._filter.kinematics.pose(measured.joint_position)
        return self._pose

    def _note(self, now_ns: int, kind: str, text: str, **data: str | float | int | bool) -> None:
        event = Event(t_ns=now_ns, clock=self._clock, kind=kind, source="host", text=text, data=data)
        self._events.append(event)

    def _reply(self, request: HostRequest, *, ok: bool, safety: SafetyState, text: str) -> HostReply:
        return HostReply(
            t_ns=request.t_ns, clock=self._clock, seq=request.seq, ok=ok, safety=safety, text=text
        )


def _said(error: Exception) -> str:
    """What went wrong, with its kind where that is none of ours: the text alone may say nothing."""
    return str(error) if isinstance(error, ReflexarcError) else f"{type(error).__name__}: {error}"
