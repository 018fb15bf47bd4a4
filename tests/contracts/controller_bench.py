"""A host that follows setpoints perfectly, and a loop that drives a controller against it in virtual time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from reflexarc.configs.action import ActionSpec, tcp_delta_spec
from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.load import load_robot
from reflexarc.configs.robot import RobotConfig
from reflexarc.controllers.controller import Controller, TickStatus
from reflexarc.controllers.ik import ArmKinematics
from reflexarc.wire.messages import (
    F64,
    ActionChunk,
    CameraFrame,
    Event,
    Observation,
    SafetyState,
    Setpoint,
    State,
    TeleopCommand,
)

HOST_NS = 5_000_000
CONTROL_NS = 10_000_000
TELEOP_NS = 20_000_000
STEP_NS = 100_000_000
STEP_S = 0.1

Policy = Callable[[Observation], F64]
"""Answers an observation with actions (H, D)."""


def panda() -> RobotConfig:
    """The robot of these tests."""
    return load_robot("panda")


class FollowingHost:
    """Commands what the last two setpoints say for each tick, and measures what it commands."""

    def __init__(self, robot: RobotConfig) -> None:
        self.kinematics = ArmKinematics(robot, ControllerConfig())
        self.safety: SafetyState = "active"
        self.joints = np.array(robot.home)
        self.velocity = np.zeros_like(self.joints)
        self.gripper = 1.0
        self.max_step = np.inf
        self._seq = 0
        self._last: Setpoint | None = None
        self._before: Setpoint | None = None

    def tick(self, now_ns: int, setpoint: Setpoint | None) -> State:
        """The state after following `setpoint` for one tick."""
        if setpoint is not None and (self._last is None or setpoint.seq > self._last.seq):
            self._before, self._last = self._last, setpoint
        before = self.joints
        if self._last is not None and self.safety in ("active", "reduced"):
            wanted = self._target(now_ns)
            self.joints = before + np.clip(wanted - before, -self.max_step, self.max_step)
            self.gripper = self._last.gripper
        self.velocity = (self.joints - before) / (HOST_NS * 1e-9)
        self._seq += 1
        return self.state(now_ns)

    def state(self, now_ns: int) -> State:
        """The present state."""
        pose = self.kinematics.forward(self.joints)
        return State(
            t_ns=now_ns,
            clock="virtual",
            seq=self._seq,
            t_state_ns=now_ns,
            joint_position=self.joints,
            joint_velocity=self.velocity,
            joint_effort=np.zeros_like(self.joints),
            joint_position_commanded=self.joints,
            joint_velocity_commanded=self.velocity,
            pose_base_tcp=pose,
            pose_base_tcp_commanded=pose,
            wrench_tcp=np.zeros(6),
            gripper=self.gripper,
            gripper_commanded=self.gripper,
            safety=self.safety,
        )

    def _target(self, now_ns: int) -> F64:
        last, before = self._last, self._before
        assert last is not None
        if before is None or now_ns >= last.t_due_ns:
            return last.joint_position
        share = (now_ns - before.t_due_ns) / (last.t_due_ns - before.t_due_ns)
        return before.joint_position + max(share, 0.0) * (last.joint_position - before.joint_position)


@dataclasses.dataclass
class Drive:
    """What happened: times (T,) ns and TCP poses (T, 7) of each host tick, and all that was said."""

    times: list[int] = dataclasses.field(default_factory=list)
    poses: list[F64] = dataclasses.field(default_factory=list)
    setpoints: list[Setpoint] = dataclasses.field(default_factory=list)
    statuses: list[TickStatus] = dataclasses.field(default_factory=list)
    events: list[Event] = dataclasses.field(default_factory=list)
    observations: list[Observation] = dataclasses.field(default_factory=list)
    chunk_statuses: list[str] = dataclasses.field(default_factory=list)
    work_ns: list[int] = dataclasses.field(default_factory=list)

    @property
    def path(self) -> F64:
        """TCP positions (T, 3), m."""
        return np.array(self.poses)[:, :3]

    def kinds(self) -> list[str]:
        """Kinds of the events, in order."""
        return [event.kind for event in self.events]


class Rig:
    """A controller, a following host and a policy that takes its time."""

    def __init__(
        self,
        policy: Policy,
        spec: ActionSpec | None = None,
        latency_ns: int = 0,
        config: ControllerConfig | None = None,
        cameras: tuple[str, ...] = ("front",),
        picture_delay_ns: int = 0,
    ) -> None:
        """latency_ns: from question to answer. picture_delay_ns: from shutter to controller."""
        robot = panda()
        self.spec = spec or tcp_delta_spec(4, STEP_S)
        self.host = FollowingHost(robot)
        self.controller = Controller(config or ControllerConfig(), robot, self.spec, cameras, "virtual")
        self.controller.reset("do it", "s1")
        self.policy = policy
        self.latency_ns = latency_ns
        self.cameras = cameras
        self.picture_delay_ns = picture_delay_ns
        self.mute = False
        self.person: Callable[[int], TeleopCommand | None] = lambda now_ns: None
        self.now_ns = 0
        self.log = Drive()
        self._setpoint: Setpoint | None = None
        self._answers: list[tuple[int, ActionChunk]] = []

    def run(self, duration_s: float) -> Drive:
        """Go on for `duration_s` of simulated time."""
        for _ in range(round(duration_s * 1e9) // HOST_NS):
            self._tick()
        return self.log

    def _tick(self) -> None:
        now, controller, log = self.now_ns, self.controller, self.log
        state = self.host.tick(now, self._setpoint)
        controller.on_state(state)
        log.times.append(now)
        log.poses.append(state.pose_base_tcp_commanded)
        captured = now - self.picture_delay_ns
        if captured >= 0 and captured % STEP_NS == 0:
            for camera in self.cameras:
                controller.on_frame(picture(camera, captured))
        if now % CONTROL_NS == 0:
            self._ask(now)
            self._deliver(now)
            command = self.person(now) if now % TELEOP_NS == 0 else None
            if command is not None:
                controller.on_teleop(command, now)
            tick = controller.tick(now)
            log.statuses.append(tick.status)
            log.events.extend(tick.events)
            log.work_ns.append(tick.work_ns)
            if tick.setpoint is not None:
                log.setpoints.append(tick.setpoint)
                self._setpoint = tick.setpoint
        self.now_ns += HOST_NS

    def _ask(self, now: int) -> None:
        observation = self.controller.observation(now)
        if observation is None:
            return
        self.log.observations.append(observation)
        if not self.mute:
            chunk = answer(observation, self.policy(observation), self.spec)
            self._answers.append((now + self.latency_ns, chunk))

    def _deliver(self, now: int) -> None:
        while self._answers and self._answers[0][0] <= now:
            status = self.controller.on_chunk(self._answers.pop(0)[1], now)
            self.log.chunk_statuses.append(status.value)


def answer(observation: Observation, actions: F64, spec: ActionSpec) -> ActionChunk:
    """`actions` as the answer to `observation`."""
    return ActionChunk(
        t_ns=observation.t_ns,
        clock="virtual",
        obs_seq=observation.seq,
        t_obs_ns=observation.t_obs_ns,
        actions=np.asarray(actions, dtype=np.float64),
        bins=np.full(np.shape(actions), -1, dtype=np.int16),
        policy_tokens=[],
        tokenizer_id="none",
        step_ns=spec.step_ns,
        spec_id=spec.id,
        model_id="test",
        session=observation.session,
    )


def picture(camera: str, t_ns: int) -> CameraFrame:
    """A picture of one pixel, another one each time."""
    return CameraFrame(
        t_ns=t_ns,
        clock="virtual",
        camera=camera,
        seq=t_ns // STEP_NS,
        t_capture_ns=t_ns,
        height=1,
        width=1,
        encoding="raw",
        data=(t_ns // STEP_NS % (1 << 24)).to_bytes(3, "little"),
    )


def moves(horizon: int, delta: tuple[float, ...], gripper: float = 1.0) -> F64:
    """A chunk (H, 7) that moves by `delta` (3 or 6 values) at each step."""
    full = np.zeros(6)
    full[: len(delta)] = delta
    return np.tile(np.append(full, gripper), (horizon, 1))
