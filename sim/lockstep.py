"""The virtual clock: world, robot host, controller and policy in one process, in lockstep with simulated time.

The parts are the very classes that the real-time processes run; only the order of their ticks is fixed here,
and every message between them passes through a `Link` (the wire codec). Nothing reads the computer's clock, so the
same seed gives the same trajectory to the bit, as fast as the machine can compute it. The policy's latency is
injected as simulated time: the world keeps moving while the model "thinks".
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Callable, Sequence

from reflexarc.configs.action import ActionSpec
from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.errors import RobotError
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.controllers.controller import Controller
from reflexarc.controllers.steering import steering_spec
from reflexarc.robots.host import RobotHost
from reflexarc.robots.teleop.stream import TeleopStream
from reflexarc.safety.states import LATCHED, latched_by
from reflexarc.sim.driver import MujocoRobot
from reflexarc.sim.latency import Latency
from reflexarc.sim.link import CodecLink, Link
from reflexarc.sim.shutter import CAMERA_NS
from reflexarc.sim.world import CAMERAS, World
from reflexarc.wire.contracts import Policy, Teleoperator
from reflexarc.wire.messages import (
    ActionChunk,
    EpisodeStart,
    HostRequest,
    Message,
    Setpoint,
    State,
    TokenRange,
)

TELEOP_NS = 20_000_000
"""Period of a person's inputs."""

Subscriber = Callable[[str, Message], None]
"""Called with (topic, message) for every message of a run; topics as in `datasets`."""


@dataclasses.dataclass(frozen=True, slots=True)
class EpisodeResult:
    """How one episode went. Times are simulated seconds. stop_rule, stop_reason: of a latched stop, or empty."""

    success: bool
    time_s: float
    chunks: int
    interventions: int
    rules: tuple[str, ...]
    final_safety: str
    stop_rule: str
    stop_reason: str


class LockstepSession:
    """Runs episodes of one task with one policy under the virtual clock."""

    def __init__(
        self,
        world: World,
        robot: RobotConfig,
        safety: SafetyConfig,
        controller: ControllerConfig,
        policy: Policy | None,
        *,
        teleoperator: Teleoperator | None = None,
        latency: Latency | None = None,
        link: Link | None = None,
        subscribers: Sequence[Subscriber] = (),
        image_encoding: str = "raw",
    ) -> None:
        """policy: who drives; None for a person alone. teleoperator: the device of a person who may take over."""
        self.world = world
        self.policy = policy
        self.subscribers = list(subscribers)
        self._driver = MujocoRobot(world, robot)
        self._host = RobotHost(self._driver, robot, safety, "virtual")
        self._teleoperator = teleoperator
        self._cameras: tuple[str, ...] = CAMERAS if policy is None else tuple(policy.info.cameras)
        if policy is None:
            self._spec = steering_spec(robot, joints=False)
        else:
            self._spec = ActionSpec.model_validate_json(policy.info.action_spec)
        asked = () if policy is None else self._cameras
        tokens = TokenRange() if policy is None else policy.info.tokens
        self._controller = Controller(controller, robot, self._spec, asked, "virtual", tokens)
        self._latency = latency or Latency([0.0])
        self._link = link or CodecLink()
        self._tick_ns = robot.tick_ns
        self._control_every = _ticks("controller period", controller.tick_ns, robot.tick_ns)
        self._teleop_every = _ticks("teleoperation period", TELEOP_NS, robot.tick_ns)
        self._camera_every = _ticks("camera period", CAMERA_NS, robot.tick_ns)
        self._physics_per_tick = _ticks("host period", robot.tick_ns, round(world.model.opt.timestep * 1e9))
        self._driver.connect()

    @property
    def now_ns(self) -> int:
        """Simulated time since the start of the episode."""
        return self._tick * self._tick_ns

    @property
    def state(self) -> State:
        """The host's latest state."""
        return self._state

    def reset(self, seed: int, *, instruction: str | None = None, metadata: str = "{}") -> None:
        """Begin an episode: lay out the world by `seed`, put the arm at home, enable it.

        `instruction` replaces what the policy is told; success still judges the world's own.
        """
        self.world.reset(seed)
        told = self.world.instruction if instruction is None else instruction
        session = f"lockstep-{seed}"
        self._tick = 0
        self._setpoint: Setpoint | None = None
        self._answers: list[tuple[int, int, ActionChunk]] = []
        self._order = itertools.count()
        self._frame_seq = 0
        self._chunks = 0
        self._interventions = 0
        self._rules: set[str] = set()
        self._stop_rule = self._stop_reason = ""
        self._latency.reseed(seed)
        self._driver.reset()
        self._host.restart(0)
        self._controller.reset(told, session)
        if self.policy is not None:
            self.policy.reset(session)
        if self._teleoperator is not None:
            self._teleoperator.connect()
            self._teleop = TeleopStream(self._teleoperator, "scripted", "virtual")
        start = EpisodeStart(
            t_ns=0,
            clock="virtual",
            episode=session,
            instruction=told,
            session=session,
            metadata=metadata,
        )
        self._publish("/episode", start)
        self._publish("/sim/initial", self.world.initial())
        reply = self._host.request(
            HostRequest(t_ns=0, clock="virtual", action="enable", seq=0, source="runner")
        )
        if not reply.ok:
            raise RobotError(f"the robot host refused to enable: {reply.text}")

    def tick(self) -> None:
        """Advance everything by one period of the robot host."""
        now = self.now_ns
        result = self._host.tick(now, self._setpoint)
        self._state = self._send("/state", result.state)
        self._controller.on_state(self._state)
        for event in result.events:
            self._publish("/event", event)
        if result.report is not None:
            self._interventions += bool(result.report.interventions)
            self._rules.update(item.rule for item in result.report.interventions)
            if rule := latched_by(result.report):
                self._stop_rule, self._stop_reason = rule, result.report.reason
            self._controller.on_report(self._send("/safety", result.report))
        if self._tick % self._camera_every == 0:
            self._take_pictures(now)
            self._ask_policy(now)
        self._deliver_answers(now)
        if self._teleoperator is not None and self._tick % self._teleop_every == 0:
            self._hear_person(now)
        if self._tick % self._control_every == 0:
            self._control(now)
        self._publish("/sim/steps", self._driver.advance(self._physics_per_tick))
        self._tick += 1

    def run(
        self, seed: int, *, instruction: str | None = None, time_limit_s: float, metadata: str = "{}"
    ) -> EpisodeResult:
        """One episode, until success has been held, safety has latched a stop, or the time is up."""
        self.reset(seed, instruction=instruction, metadata=metadata)
        limit = round(time_limit_s * 1e9)
        while self.now_ns < limit and not self.world.success():
            self.tick()
            if self._state.safety in LATCHED:
                break
        return self.result()

    def result(self) -> EpisodeResult:
        """The outcome so far."""
        return EpisodeResult(
            success=self.world.success(),
            time_s=self.now_ns * 1e-9,
            chunks=self._chunks,
            interventions=self._interventions,
            rules=tuple(sorted(self._rules)),
            final_safety=self._state.safety,
            stop_rule=self._stop_rule,
            stop_reason=self._stop_reason,
        )

    def close(self) -> None:
        """Release the driver and the link."""
        self._driver.close()
        self._link.close()

    def _take_pictures(self, now: int) -> None:
        self._publish("/sim/truth", self.world.truth(now))
        for camera in self._cameras:
            frame = self.world.frame(camera, now, self._frame_seq)
            self._controller.on_frame(self._send(f"/camera/{camera}", frame))
        self._frame_seq += 1

    def _ask_policy(self, now: int) -> None:
        observation = None if self.policy is None else self._controller.observation(now)
        if observation is None:
            return
        assert self.policy is not None
        chunk = self.policy.act(self._send("/observation", observation))
        due = now + self._latency.draw_ns()
        heapq.heappush(self._answers, (due, next(self._order), chunk))

    def _hear_person(self, now: int) -> None:
        command, event = self._teleop.read(now)
        if event is not None:
            self._publish("/event", event)
        self._controller.on_teleop(self._send("/teleop", command), now)

    def _deliver_answers(self, now: int) -> None:
        while self._answers and self._answers[0][0] <= now:
            chunk = self._send("/chunk", heapq.heappop(self._answers)[2])
            self._chunks += 1
            self._controller.on_chunk(chunk, now)

    def _control(self, now: int) -> None:
        tick = self._controller.tick(now)
        for event in tick.events:
            self._publish("/event", event)
        if tick.setpoint is not None:
            self._setpoint = self._send("/setpoint", tick.setpoint)

    def _send[M: Message](self, topic: str, message: M) -> M:
        """Carry a message over the link and show it to the subscribers."""
        received = self._link.carry(message)
        self._publish(topic, received)
        return received

    def _publish(self, topic: str, message: Message) -> None:
        for subscriber in self.subscribers:
            subscriber(topic, message)


def _ticks(name: str, period_ns: int, tick_ns: int) -> int:
    """How many ticks make a period; a lockstep run needs a whole number."""
    ticks, rest = divmod(period_ns, tick_ns)
    if rest or ticks < 1:
        raise RobotError(f"{name} {period_ns} ns is not a whole number of {tick_ns} ns ticks")
    return ticks
