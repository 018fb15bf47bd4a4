"""The setpoints of a log once more, to whatever robot host listens: a simulated arm or a real one.

It stands where a controller does, and has no more rights: every setpoint passes the host's safety filter, which limits,
holds or stops as it would a policy. The path is kept and its time is stretched: by the speed that was asked for, and
further for as long as the arm is behind. What comes of it is recorded like any episode.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reflexarc.configs.errors import ConfigError, LogError, RobotError, WireError
from reflexarc.controllers.pace import Pace
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.logged_path import JointPath, Motion, approach, logged_motion, logged_path
from reflexarc.processes import Processes
from reflexarc.safety.states import LATCHED, latched_by
from reflexarc.setup import Setup
from reflexarc.stack import start_recorder
from reflexarc.wire.clock import CONTROLLER_PRIORITY, Rate, monotonic_ns, prefer_this_process
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import (
    F64,
    EpisodeStart,
    EpisodeStop,
    Event,
    HostAction,
    HostReply,
    HostRequest,
    Message,
    SafetyReport,
    Setpoint,
    SetpointSource,
    State,
)
from reflexarc.wire.roles import find_key
from reflexarc.wire.sockets import PeerWatch, Publisher, Push, Requester, Subscriber

SLOWEST, FASTEST = 0.1, 1.0
"""Of the logged speed. Nothing is replayed faster than it was: nobody has seen that motion yet."""
START_RAD = 0.05
"""The arm must stand this near to where the log begins; half of what the filter of the presets allows at an enable."""
APPROACH_RAD_S = 0.25
"""Of the fastest joint on the way to the start: 14°/s."""
TICK_NS = 10_000_000
"""As the controllers of the presets: 100 Hz."""
KEPT = 50
"""Setpoints that are remembered until the host's state tells what became of them."""
READY_S = 20.0
SETTLE_S = 0.15
"""For everybody to take in that an episode has begun or ended."""
REST_S = 0.5
"""The last setpoint is repeated for so long: the arm comes to rest there before it is held."""
SILENT_NS = 500_000_000
"""A host that publishes no state for so long is gone."""
BEHIND_RAD = 0.05
"""A joint that safety lets lag further than this behind what was asked makes the path wait for it."""
LEAST_PACE = 0.1
"""But not longer than ten times: where safety does not let the arm go at all, the replay still comes to its end."""


@dataclasses.dataclass(frozen=True, slots=True)
class JointDifference:
    """The largest |logged - replayed| measured position of one joint, rad, and when in the log, s after its begin."""

    joint: str
    rad: float
    at_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class RobotReplay:
    """How a replay went. differences: none without logged states; tcp_m: the largest between the TCP's positions.

    limited: ticks in which safety limited something, by rule. seconds: it took, of logged_s in the log.
    """

    source: str
    log: str
    speed: float
    logged_s: float
    seconds: float
    differences: tuple[JointDifference, ...]
    tcp_m: float
    limited: dict[str, int]

    @property
    def worst(self) -> JointDifference | None:
        """Of the joint that differs most."""
        return max(self.differences, key=lambda each: each.rad, default=None)


def replay_on_robot(
    log: Path,
    endpoints: Endpoints,
    setup: Setup,
    folder: Path,
    *,
    speed: float = 1.0,
    may_approach: bool = False,
    say: Callable[[str], None] = print,
) -> RobotReplay:
    """Replay `log` on the robot at `endpoints`, recording into `folder/episodes`; ends with the arm held.

    speed: SLOWEST..FASTEST. may_approach: drive to where the log begins, slowly and through safety like all else.
    Before anything moves: ConfigError for a speed beyond that, LogError for a log without setpoints or for another
    arm, RobotError for a host that is not there or is stopped, or an arm that stands elsewhere. RobotError, with the
    arm stopped and the log closed, if safety latches a stop or the host is lost on the way.
    """
    if not SLOWEST <= speed <= FASTEST:
        raise ConfigError(f"speed is {speed:g} of the logged one; it must be within {SLOWEST:g}..{FASTEST:g}")
    reader = EpisodeReader(log)
    path, motion = logged_path(reader), logged_motion(reader)
    _check_joints(reader, path, setup)
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(Processes(folder / "processes"))
        stage = _Stage(endpoints, stack)
        start_recorder(processes, endpoints, folder / "episodes", setup.recording)
        state = stage.wait_ready(processes.check)
        apart = _start_difference(reader, path, state, setup, may_approach)
        ways = [path]
        if apart > START_RAD:
            first = path.at(path.begin_ns)[0]
            ways.insert(0, approach(state.joint_position, state.gripper, first, APPROACH_RAD_S))
            say(f"driving {apart:.2f} rad to where the log begins, at most {APPROACH_RAD_S} rad/s")
        record = _Record(reader, setup, speed)
        stage.episode(record, ways, speed, processes.check)
        recorded = stage.recorded(record.episode, processes.check)
    differences, tcp_m = _differences(path, motion, stage, setup)
    return RobotReplay(
        source=str(log),
        log=str(recorded),
        speed=speed,
        logged_s=(path.end_ns - path.begin_ns) * 1e-9,
        seconds=stage.seconds,
        differences=differences,
        tcp_m=tcp_m,
        limited=dict(stage.limited),
    )


def _differences(
    path: JointPath, motion: Motion | None, stage: _Stage, setup: Setup
) -> tuple[tuple[JointDifference, ...], float]:
    """Of each joint, and of the TCP's position in m, where both the log and the replay measured it."""
    if motion is None or not stage.states:
        return (), 0.0
    replayed = Motion.of(stage.states)
    marks = np.array(stage.marks, dtype=np.int64)
    within = (replayed.times_ns >= marks[0, 0]) & (replayed.times_ns <= marks[-1, 0])
    times_ns = np.interp(replayed.times_ns, marks[:, 0], marks[:, 1]).astype(np.int64)
    within &= (times_ns >= motion.times_ns[0]) & (times_ns <= motion.times_ns[-1])
    if not within.any():
        return (), 0.0
    times_ns = times_ns[within]
    joints, tcp = motion.at(times_ns)
    apart = np.abs(replayed.joints[within] - joints)
    worst = np.argmax(apart, axis=0)
    found = tuple(
        JointDifference(name, float(apart[row, joint]), (int(times_ns[row]) - path.begin_ns) * 1e-9)
        for joint, (name, row) in enumerate(zip(setup.robot.joint_names, worst.tolist(), strict=True))
    )
    return found, float(np.max(np.linalg.norm(replayed.tcp[within] - tcp, axis=1)))


def _check_joints(reader: EpisodeReader, path: JointPath, setup: Setup) -> None:
    """LogError if the log was not recorded on an arm with these joints."""
    logged = reader.metadata.get("configs", {}).get("robot", {}).get("joints", [])
    names = tuple(str(joint.get("name")) for joint in logged)
    ours = setup.robot.joint_names
    if (names and names != ours) or path.joints.shape[1] != len(ours):
        of = f"joints {', '.join(names)}" if names else f"{path.joints.shape[1]} joints"
        raise LogError(f"{reader.path}: the log is of {of}; robot {setup.robot.name!r} has {', '.join(ours)}")


def _start_difference(
    reader: EpisodeReader, path: JointPath, state: State, setup: Setup, may_approach: bool
) -> float:
    """How far the farthest joint is from where the log begins, rad; RobotError if that is too far to begin."""
    if state.joint_position.shape != path.joints[0].shape:
        raise RobotError(
            f"the running robot has {len(state.joint_position)} joints, {reader.path} is of {path.joints.shape[1]}"
        )
    distance = np.abs(path.joints[0] - state.joint_position)
    worst = int(np.argmax(np.where(np.isfinite(distance), distance, np.inf)))
    apart = float(distance[worst])
    if not np.isfinite(apart):
        raise LogError(f"{reader.path}: the first setpoint of {setup.robot.joint_names[worst]} is not finite")
    if apart > START_RAD and not may_approach:
        raise RobotError(
            f"the arm is not where {reader.path.name} begins: {setup.robot.joint_names[worst]} is at "
            f"{state.joint_position[worst]:.3f} rad, the log begins at {path.joints[0, worst]:.3f} rad, "
            f"{apart:.3f} rad apart (limit {START_RAD} rad); move the arm there, or let --approach do it slowly"
        )
    return apart


@dataclasses.dataclass(frozen=True, slots=True)
class _Record:
    """What the new log says of where it comes from."""

    reader: EpisodeReader
    setup: Setup
    speed: float

    @property
    def episode(self) -> str:
        return f"replay-{self.reader.path.stem}"

    def metadata(self) -> str:
        logged = self.reader.metadata
        text = self.setup.metadata(
            task=str(logged.get("task", "")),
            seed=int(logged.get("seed", -1)),
            policy="replay",
            clock="monotonic",
        )
        of = {"log": str(self.reader.path), "speed": self.speed}
        return json.dumps(json.loads(text) | {"replay": of}, sort_keys=True)


class _Stage:
    """The sockets of a replay: a controller's towards the host, a runner's towards the recorder."""

    def __init__(self, endpoints: Endpoints, stack: contextlib.ExitStack) -> None:
        """Raises WireError if another controller or runner is at work: two must not drive one arm."""
        keep = stack.enter_context
        self._runner = keep(Publisher(endpoints.runner, name="runner"))
        self._controller = keep(Publisher(endpoints.controller, name="controller"))
        self._watch = PeerWatch(endpoints.heartbeat, ("host", "recorder"))
        stack.callback(self._watch.close)
        self._setpoints = keep(Push(endpoints.setpoint, name="setpoint", queue=2))
        self._console: Requester[HostReply] = keep(
            Requester(endpoints.console, HostReply, name="host console")
        )
        self._host: Subscriber[Message] = keep(Subscriber(endpoints.state, State, SafetyReport, name="state"))
        self._recorder: Subscriber[Event] = keep(
            Subscriber(endpoints.recorder, Event, name="recorder's notes")
        )
        self._seq = 0
        self._latest: State | None = None
        self._heard_ns = 0
        self._stopped = ""
        self.limited: collections.Counter[str] = collections.Counter()
        self.states: list[State] = []
        """Measured during the replay, the approach left out."""
        self.marks: list[tuple[int, int]] = []
        """(when a setpoint was due, of what time of the log it is), ns."""
        self.seconds = 0.0

    def wait_ready(self, check: Callable[[], None]) -> State:
        """Where the arm is. RobotError naming who is not there, or a latched stop, which is not unlatched here."""
        deadline = time.monotonic() + READY_S
        while self._watch.waiting or self._latest is None:
            self._watch.update(monotonic_ns())
            self._hear()
            check()
            if time.monotonic() > deadline:
                missing = self._watch.waiting or ("host (it publishes no state)",)
                raise RobotError(
                    f"no sign of {', '.join(missing)} at {self._console.address} within {READY_S:.0f} s; "
                    f"is `reflexarc robot` running there? name its --port"
                )
            time.sleep(0.02)
        if self._latest.safety in LATCHED:
            raise RobotError(
                f"the robot host is in {self._latest.safety}; look why, then `reflexarc console reset`"
            )
        return self._latest

    def episode(
        self, record: _Record, ways: list[JointPath], speed: float, check: Callable[[], None]
    ) -> None:
        """Drive along `ways`, the last of which is the log's; the arm is held and the log closed however it ends."""
        start = EpisodeStart(
            t_ns=monotonic_ns(),
            episode=record.episode,
            instruction=record.reader.instruction,
            session=record.episode,
            metadata=record.metadata(),
        )
        self._runner.send(start)
        time.sleep(SETTLE_S)
        outcome: dict[str, Any] = {"end": "interrupted"}
        begun = time.monotonic()
        try:
            self._enable()
            prefer_this_process(CONTROLLER_PRIORITY)
            for way in ways[:-1]:
                self._drive(way, 1.0, "home", check)
            self.limited.clear()
            begun = time.monotonic()
            self._drive(ways[-1], speed, "replay", check)
            outcome = {"end": "replayed"}
        except RobotError as error:
            outcome = {"end": str(error)}
            raise
        finally:
            self.seconds = time.monotonic() - begun
            outcome |= {"time_s": self.seconds, "limited": dict(self.limited)}
            self._finish(record.episode, outcome)

    def recorded(self, episode: str, check: Callable[[], None]) -> Path:
        """The log, once it is closed; LogError if the recorder could not write it."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            for event in self._recorder.drain():
                if event.kind == "recorded" and Path(str(event.data["path"])).stem == episode:
                    return Path(str(event.data["path"]))
                if event.kind == "recorder_error":
                    raise LogError(event.text)
            check()
            time.sleep(0.02)
        raise LogError(f"the replay was not recorded within {READY_S:.0f} s; see recorder.log")

    def _enable(self) -> None:
        """From whatever state that is not latched; RobotError if it is refused."""
        if self._request("status").safety not in ("off", "ready"):
            self._request("disable")
        reply = self._request("enable")
        if not reply.ok:
            raise RobotError(
                f"the robot host refused to enable the arm in state {reply.safety}: {reply.text}"
            )

    def _request(self, action: HostAction) -> HostReply:
        self._seq += 1
        key = find_key(self._console.address, "supervisor")
        return self._console.request(
            HostRequest(t_ns=monotonic_ns(), action=action, seq=self._seq, source="replay", key=key), 2.0
        )

    def _drive(
        self, path: JointPath, speed: float, source: SetpointSource, check: Callable[[], None]
    ) -> None:
        """Send `path` from its begin to its end, then stand there for REST_S."""
        control = Event(t_ns=monotonic_ns(), kind="control", source="controller", data={"source": source})
        self._controller.send(control)
        pace, rate = Pace(), Rate(TICK_NS)
        asked: collections.deque[tuple[int, F64]] = collections.deque(maxlen=KEPT)
        first_ns = rested_ns = 0
        while not rested_ns or monotonic_ns() < rested_ns:
            rate.sleep()
            now = monotonic_ns()
            self._hear(source == "replay")
            self._check_host(now)
            check()
            due_ns = now + TICK_NS
            wanted = speed * max(BEHIND_RAD / max(self._behind(asked), BEHIND_RAD), LEAST_PACE)
            first_ns = first_ns or due_ns
            time_ns = path.begin_ns + pace.advance(due_ns, wanted, standing=not asked) - first_ns
            position, velocity, gripper = path.at(time_ns)
            asked.append((due_ns, position))
            self._send(due_ns, position, velocity * pace.speed, gripper, source)
            if source == "replay":
                self.marks.append((due_ns, time_ns))
            if time_ns >= path.end_ns and not rested_ns:
                rested_ns = now + round(REST_S * 1e9)

    def _send(
        self, due_ns: int, position: F64, velocity: F64, gripper: float, source: SetpointSource
    ) -> None:
        self._seq += 1
        setpoint = Setpoint(
            t_ns=monotonic_ns(),
            seq=self._seq,
            t_due_ns=due_ns,
            joint_position=position,
            joint_velocity=velocity,
            gripper=gripper,
            source=source,
        )
        self._setpoints.send(setpoint)
        self._controller.send(setpoint)

    def _behind(self, asked: collections.deque[tuple[int, F64]]) -> float:
        """How far the joint that lags most is commanded from what was asked for that instant, rad."""
        assert self._latest is not None
        then = next((place for due, place in reversed(asked) if due <= self._latest.t_ns), None)
        if then is None:
            return 0.0
        behind = float(np.max(np.abs(then - self._latest.joint_position_commanded)))
        return behind if np.isfinite(behind) else 0.0  # to refuse a log's NaN is safety's business

    def _hear(self, keep: bool = False) -> None:
        """Take in what the host publishes; `keep` the states for the comparison."""
        for message in self._host.drain():
            if isinstance(message, State):
                self._latest, self._heard_ns = message, monotonic_ns()
                if keep:
                    self.states.append(message)
            elif isinstance(message, SafetyReport):
                self.limited.update({item.rule for item in message.interventions})
                if rule := latched_by(message):
                    self._stopped = f"{message.state} by {rule}: {message.reason}"

    def _check_host(self, now_ns: int) -> None:
        """RobotError if the host has latched a stop, or is gone."""
        assert self._latest is not None
        if self._latest.safety in LATCHED:
            reason = self._stopped or self._latest.safety
            raise RobotError(f"the replay was stopped at {self._where()} of the log: {reason}")
        if now_ns - self._heard_ns > SILENT_NS:
            raise RobotError(
                f"the replay was broken off at {self._where()} of the log: the robot host is silent"
            )

    def _where(self) -> str:
        return f"{(self.marks[-1][1] - self.marks[0][1]) * 1e-9:.2f} s" if self.marks else "the start"

    def _finish(self, episode: str, outcome: dict[str, Any]) -> None:
        """Hold the arm first, whatever else may fail; then end the episode."""
        with contextlib.suppress(WireError):  # a host that is gone: its arm brakes by itself
            self._request("hold")
        stop = EpisodeStop(t_ns=monotonic_ns(), episode=episode, outcome=json.dumps(outcome))
        time.sleep(SETTLE_S)
        self._runner.send(stop)
        time.sleep(SETTLE_S)
