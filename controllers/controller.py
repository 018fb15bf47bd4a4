"""The controller: chunks in, setpoints out, at its own rate, with no socket, thread or clock of its own.

Whoever runs it says what time it is: the real-time process by the host's monotonic clock, the lockstep session by
simulated time. It never waits for a policy, and `tick` never raises: what is wrong is a status and an event.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import time
from collections import deque

import numpy as np

from reflexarc.configs.action import ActionSpec
from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.errors import ControlError
from reflexarc.configs.robot import RobotConfig
from reflexarc.controllers.blend import Blend, settle
from reflexarc.controllers.cameras import CameraWatch
from reflexarc.controllers.chunk import (
    Anchor,
    Knots,
    Space,
    action_space,
    bounds,
    clip_to_bounds,
    compose,
    decompose,
    refusal,
)
from reflexarc.controllers.ensemble import ensembled
from reflexarc.controllers.gauss_newton import LEVER_M
from reflexarc.controllers.ik import ArmKinematics, IkStatus, Solution
from reflexarc.controllers.interpolate import Braking, CubicPath, LinearPath
from reflexarc.controllers.jerk import JerkLimitedPath, MotionLimits, acceleration_before
from reflexarc.controllers.pace import Pace, eased_share, kept_pace
from reflexarc.controllers.path import NS, Path, Sample, Stop
from reflexarc.controllers.steering import Steering
from reflexarc.controllers.tracker import ARRIVED_RAD, JointLimits, JointTracker
from reflexarc.wire import geometry
from reflexarc.wire.messages import (
    F64,
    ActionChunk,
    CameraFrame,
    ErrorReply,
    Event,
    Observation,
    SafetyReport,
    SafetyState,
    Setpoint,
    SetpointSource,
    State,
    TeleopCommand,
    TokenRange,
)

FOLLOWING: frozenset[SafetyState] = frozenset({"active", "reduced", "hold", "recovery"})
"""Host states in which setpoints are, or may soon be, followed."""
POLICY = "policy"
"""Name of the policy server in events about it."""
STATES_KEPT = 512
"""Ring of the host's states: 2.5 s at 200 Hz, far more than a picture's way from shutter to controller."""
SENT_KEPT = 16
"""Setpoints to compare the host's commands with: 160 ms at 100 Hz."""
ASTRAY_RAD = 0.05
"""A host whose command is further than this from every recent setpoint does not follow: go on from where it is."""
RESUME_S = 0.2
"""Time over which the path is taken up again from there."""
TELEOP_SILENT_NS = 200_000_000
"""A person's input counts for no longer than this: a device or a process that is gone is a hold."""
MISSED_TICKS = 10
"""A target that the IK has missed for so long is told."""
LONGEST_PERIOD = 5
"""Ticks; after a longer pause the motion of one tick is not stretched over it."""
ANSWERS_KEPT = 10
"""Answers whose slowest is what the next one is expected to take (as in real-time chunking's algorithm 1)."""
CHUNKS_KEPT = 16
"""Earlier chunks that temporal ensembling averages over."""
REPORT_COUNTS_NS = 50_000_000
"""A report of safety that motion was limited slows the path for so long."""
BEHIND, BEHIND_AT_REST = (3e-3, 1e-2), (2e-4, 5e-4)
"""m (or rad) of the gap, and rad of the joints: an arm further than this from its path has yet to make up for what was
missed. The second pair holds where a chunk starts on arrival, and so from rest."""
PATIENCE = 3
"""Policy steps after which an arm that is still behind is shown to the policy all the same: it may be held back."""
LOOK_NS, LOOKS = 20_000_000, 6
"""How far ahead on its path the controller looks for what the joints cannot do: 120 ms, in which it can slow down."""
LOOKS_A_TICK = 3
"""New ones of these in one tick."""
BEND_SHARE = 1.2
"""Of the joints' acceleration that a path may ask for before it is slowed: the joints round a short excess off."""
STANDING_RAD_S = 0.02
"""Joints slower than this stand: the pace may then change at once."""
LEAST_PACE = 0.25
"""Safety does not slow the path further: one that stands could never lead out of where it is held back."""
SLOWEST = 0.1
"""A corner, which asks for any acceleration, is taken no more slowly than this; the joints round it off."""
LAG_RAD = 0.03
"""Joints that are further behind their targets than this make the path wait for them."""


class TickStatus(enum.Enum):
    """How one tick went."""

    WAITING = "waiting"  # no state of the robot yet: nothing is sent
    STOPPED = "stopped"  # the host follows nobody: its own command is sent back
    TRACKING = "tracking"
    BRAKING = "braking"  # the chunk has run out
    HOLDING = "holding"
    IK_LIMITED = "ik_limited"  # the target is missed by more than `ik.REACHED_M`
    IK_SINGULAR = "ik_singular"  # missed because joint motion is damped near a singularity
    IK_FAILED = "ik_failed"  # no solution: the joints brake and hold


MISSED = {
    IkStatus.LIMITED: TickStatus.IK_LIMITED,
    IkStatus.SINGULAR: TickStatus.IK_SINGULAR,
    IkStatus.FAILED: TickStatus.IK_FAILED,
}


class ChunkStatus(enum.Enum):
    """What became of one chunk."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"  # does not fit the spec, or is not finite
    STALE = "stale"  # all its waypoints are past
    UNEXPECTED = "unexpected"  # answers no open request
    IGNORED = "ignored"  # the robot host follows nobody, or a person is in control


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Tick:
    """What one tick gave. work_ns: how long it took by the process's own timer; never part of a message."""

    status: TickStatus
    setpoint: Setpoint | None
    events: tuple[Event, ...]
    work_ns: int


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Request:
    """An observation that waits for its answer."""

    seq: int
    asked_ns: int
    anchor: Anchor


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """The chunk that is being executed. due_ns: host time from which on pictures ask for the next one."""

    obs_seq: int
    t_obs_ns: int
    knots: Knots
    source: SetpointSource
    due_ns: int = 0


class Controller:
    """Composes chunks onto the commanded target, interpolates, solves the IK, tells when to look again.

    cameras: whose pictures make an observation; none for a policy that sees the state only. clock: `"monotonic"` or
    `"virtual"`, stamped on every message. tokens: what the policy can say; by default none. Raises ControlError if
    `spec` is no action space of `robot`.
    """

    _plan: _Plan | None
    _path: Path | None
    _sent: deque[tuple[int, F64]]
    _joints: F64
    _aim: F64
    _missed_ticks: int
    _earlier: deque[Knots]
    _looked_at: Path | None
    _looks: dict[int, F64]
    _foreseen: tuple[int, float]
    _lag: float
    _last_due_ns: int
    _arrived: bool
    _underrun_told: bool
    _gripper: float

    def __init__(
        self,
        config: ControllerConfig,
        robot: RobotConfig,
        spec: ActionSpec,
        cameras: tuple[str, ...],
        clock: str,
        tokens: TokenRange | None = None,
    ) -> None:
        self._config = config
        self._spec = spec
        self._tokens = tokens or TokenRange()
        self._space = action_space(spec, len(robot.joints))
        self._bounds = bounds(spec)
        self._cameras = cameras
        self._clock = clock
        self._kinematics = ArmKinematics(robot, config)
        self._on_arrival = spec.alignment == "on_arrival"
        self._braking = Braking(
            config.hold_deceleration, config.hold_deceleration / LEVER_M, self._on_arrival
        )
        self._blend_ns = round(config.blend_s / NS)
        self._timeout_ns = round(config.policy_timeout_s / NS)
        self._robot_name = robot.name
        self._joint_count = len(robot.joints)
        limits = JointLimits.of(robot, config)
        self._motion_limits = _motion_limits(config, limits, self._space)
        self._gap_limits = _gap_limits(config, limits, self._space)
        self._tracker = JointTracker(limits)
        self._tracking = config.seam == "jerk_limited"
        self._pace = Pace()
        self._speed_scale = config.speed_scale
        self._steering = Steering(config, robot, self._space, self._kinematics)
        self._setpoint_seq = 0
        self._warm_up()
        self.reset("", "")

    def _warm_up(self) -> None:
        """Compile what the first chunk needs (`kernels.py`): the loop must not stand still for it."""
        size = self._joint_count if self._space == "joint" else 3
        nothing = np.zeros(size + 3)
        still = Sample(np.zeros(size), geometry.identity_pose()[3:], np.zeros(size), np.zeros(3))
        anchor = Anchor(0, still.point + 0.01, still.quat, still.velocity, still.spin)
        knots = compose(np.zeros((self._spec.horizon, self._spec.size)), self._spec, self._space, anchor, 0)
        path = CubicPath(knots, self._braking)
        Blend(still, nothing, path, 0, self._config.blend_s, self._gap_limits).sample(self._config.tick_ns)
        n, limits = self._joint_count, self._tracker.limits
        kept_pace(np.zeros((2, n)), limits.velocity, limits.acceleration, LOOK_NS * NS)
        if self._space == "tcp":
            rates = np.zeros((n, 6))
            eased_share(rates, *still, *still, self._gap_limits.acceleration, limits.acceleration)

    def reset(self, instruction: str, session: str) -> None:
        """Begin an episode: forget states, pictures, chunks and requests; go on from the host's next state.

        Setpoints keep counting: a robot host refuses a sequence that starts again.
        """
        self._instruction = instruction
        self._session = session
        self._states: deque[State] = deque(maxlen=STATES_KEPT)
        self._frames: dict[str, CameraFrame] = {}
        self._camera_watch = CameraWatch(self._config.camera_watch)
        self._seen_ns = -1
        self._obs_seq = 0
        self._answers_ns: deque[int] = deque(maxlen=ANSWERS_KEPT)
        self._request: _Request | None = None
        self._policy_lost = False
        self._misfit_told = False
        self._person = False
        self._resuming = False
        self._source = ""
        self._allowed, self._allowed_ns = 1.0, -REPORT_COUNTS_NS
        self._events: list[Event] = []
        self._drop_plan()

    def on_state(self, state: State) -> None:
        """Take the host's latest state. One that is older than the last, or of another arm, is dropped."""
        if self._states and state.t_state_ns < self._states[-1].t_state_ns:
            return
        if not self._fits(state):
            return
        self._states.append(state)
        if self._path is None or state.safety not in FOLLOWING:
            self._hold_where_commanded(state)

    def on_report(self, report: SafetyReport) -> None:
        """Take what safety says it did: where it allowed only a part of the motion, the path's clock is slowed."""
        if report.speed_scale < 1.0 and self._path is not None:
            self._allowed = max(report.speed_scale, 0.0)
            self._allowed_ns = self._states[-1].t_ns

    def set_speed_scale(self, scale: float) -> None:
        """The pace of the path from now on, in (0, 1] of the policy's own; ControlError if it is not."""
        if not 0.0 < scale <= 1.0:
            raise ControlError(f"speed_scale is {scale}, it must be above 0 and at most 1")
        self._speed_scale = scale

    @property
    def _standing(self) -> bool:
        return float(np.abs(self._tracker.velocity).max()) < STANDING_RAD_S

    @property
    def pace(self) -> float:
        """How fast the path's clock runs now, 1: as fast as time."""
        return self._pace.speed

    def on_frame(self, frame: CameraFrame) -> None:
        """Take a picture; of each camera the newest counts."""
        last = self._frames.get(frame.camera)
        if frame.camera in self._cameras and (last is None or frame.t_capture_ns > last.t_capture_ns):
            position = self._states[-1].joint_position if self._states else None
            if self._camera_watch.take(frame, position, frame.t_capture_ns):
                self._frames[frame.camera] = frame

    def observation(self, now_ns: int) -> Observation | None:
        """What to ask the policy now, or None: no new pictures, a request is open, or no chunk is due yet."""
        if self._person or self._request is not None or not self._states:
            return None
        if self._states[-1].safety not in FOLLOWING:
            return None
        t_obs = self._new_pictures_ns()
        if t_obs is None or not self._chunk_is_due(t_obs):
            return None
        state = self._state_at(t_obs)
        if state is None:
            return None
        anchor = self._anchor(state, t_obs)
        committed, frozen_steps = self._committed(anchor, now_ns)
        observation = Observation(
            t_ns=now_ns,
            clock=self._clock,
            seq=self._obs_seq,
            t_obs_ns=t_obs,
            state=state,
            images={camera: self._frames[camera] for camera in self._cameras},
            instruction=self._instruction,
            session=self._session,
            committed=committed,
            frozen_steps=frozen_steps,
        )
        self._request = _Request(self._obs_seq, now_ns, anchor)
        self._obs_seq += 1
        self._seen_ns = t_obs
        return observation

    def on_chunk(self, chunk: ActionChunk, now_ns: int) -> ChunkStatus:
        """Take the policy's answer. Whatever is wrong with it is told by an event; the arm goes on as it was."""
        if self._person:
            return ChunkStatus.IGNORED
        request = self._request
        if request is None or chunk.obs_seq != request.seq or chunk.session not in ("", self._session):
            text = (
                f"chunk for observation {chunk.obs_seq} of session {chunk.session!r} answers no open request"
            )
            self._tell(now_ns, "chunk_unexpected", text)
            return ChunkStatus.UNEXPECTED
        self._request = None
        self._answers_ns.append(now_ns - request.asked_ns)
        self._policy_is_back(now_ns)
        reason = refusal(chunk, self._spec, self._tokens)
        if not reason and chunk.t_obs_ns != request.anchor.t_obs_ns:
            reason = f"t_obs_ns is {chunk.t_obs_ns}, observation {request.seq} has {request.anchor.t_obs_ns}"
        if reason:
            self._tell(now_ns, "chunk_rejected", f"chunk {chunk.obs_seq} of {chunk.model_id}: {reason}")
            return ChunkStatus.REJECTED
        if self._path is None or self._states[-1].safety not in FOLLOWING:
            return ChunkStatus.IGNORED
        return self._accept(chunk, request, now_ns)

    def on_error(self, reply: ErrorReply, now_ns: int) -> None:
        """Take a refusal in place of a chunk: tell it, and ask again with the next pictures."""
        if self._request is not None and reply.obs_seq in (-1, self._request.seq):
            self._request = None
            self._policy_is_back(now_ns)
        self._tell(
            now_ns, "policy_error", f"the policy server refused observation {reply.obs_seq}: {reply.text}"
        )

    def on_teleop(self, command: TeleopCommand, now_ns: int) -> None:
        """Take a person's input. The first one that is engaged takes the arm over, until a `give_back`.

        Meanwhile no policy is asked; a person who lets go, or whose device falls silent, leaves the arm at rest.
        """
        if self._path is None or self._states[-1].safety not in FOLLOWING:
            self._steering.release()
            return
        refused = self._steering.refusal(command) if command.engaged else ""
        if refused:
            self._tell(now_ns, "teleop_rejected", f"input {command.seq} of {command.device}: {refused}")
            return
        if command.engaged and not self._person:
            self._person, self._request = True, None
        if self._person and "give_back" in command.keys:
            self._give_back(now_ns)
        elif self._person:
            self._steer(command, now_ns)

    def forget_request(self, now_ns: int, why: str) -> None:
        """Give the open request up, because the policy server seems gone; told once, until it answers again."""
        self._request = None
        if not self._policy_lost:
            self._policy_lost = True
            self._tell(now_ns, "peer_lost", f"the policy server is lost: {why}; holding", peer=POLICY)

    def tick(self, now_ns: int) -> Tick:
        """One setpoint, due one period from now."""
        begun = time.perf_counter_ns()
        self._forget_lost_request(now_ns)
        for kind, text in self._camera_watch.events(now_ns):
            self._tell(now_ns, kind, text)
        if self._path is None:
            status, setpoint = TickStatus.WAITING, None
        elif self._states[-1].safety not in FOLLOWING:
            status = TickStatus.STOPPED
            setpoint = self._setpoint(now_ns, self._joints, np.zeros_like(self._joints))
        else:
            status, setpoint = self._move(now_ns)
        events, self._events = tuple(self._events), []
        return Tick(status, setpoint, events, time.perf_counter_ns() - begun)

    # Moving

    def _move(self, now_ns: int) -> tuple[TickStatus, Setpoint]:
        self._catch_astray(now_ns)
        due_ns = now_ns + self._config.tick_ns
        assert self._path is not None
        period_ns = due_ns - self._last_due_ns if self._last_due_ns >= 0 else self._config.tick_ns
        period_ns = min(max(period_ns, 1), LONGEST_PERIOD * self._config.tick_ns)
        path_ns = self._pace.advance(due_ns, self._pace_wanted(now_ns), standing=self._standing)
        settled = settle(self._path, path_ns)
        if self._looked_at is self._path:  # from here on they are the same
            self._looked_at = settled
        self._path = settled
        self._tell_underrun(now_ns, path_ns)
        status = self._follow(path_ns, now_ns, period_ns * NS)
        self._last_due_ns = due_ns
        self._sent.append((due_ns, self._joints))
        return status, self._setpoint(now_ns, self._joints, self._tracker.velocity)

    def _pace_wanted(self, now_ns: int) -> float:
        """How fast the path may go on: as set, as safety allows, and no faster than the joints can follow."""
        wanted = self._speed_scale * self._unhurried()
        if now_ns - self._allowed_ns < REPORT_COUNTS_NS:
            wanted = min(wanted, max(self._pace.speed * self._allowed, LEAST_PACE))
        if not self._tracking or self._arrived:
            return wanted
        return min(wanted, LAG_RAD / max(self._lag, LAG_RAD), self._foreseen_pace(self._pace.path_ns(now_ns)))

    def _unhurried(self) -> float:
        """The pace for a model that is as slow as the slowest of the last answers."""
        slowest_s, enough_s = max(self._answers_ns, default=0) * NS, self._config.unhurried_s
        return max(enough_s / slowest_s, LEAST_PACE) if slowest_s > enough_s > 0.0 else 1.0

    def _foreseen_pace(self, path_ns: int) -> float:
        """The pace at which the joints can follow what the path does next, which leaves every place as it is."""
        first = path_ns // LOOK_NS
        if (
            self._looked_at is not self._path
        ):  # a tick that takes up a new path does not look along it as well
            self._looked_at, self._looks, self._foreseen = self._path, {}, (-1, self._foreseen[1])
            return self._foreseen[1]
        if self._foreseen[0] == first and first + LOOKS in self._looks:
            return self._foreseen[1]
        self._look(first)
        seen = np.array([self._looks[k] for k in range(first, first + LOOKS + 1) if k in self._looks])
        rates = seen if self._space == "joint" else seen @ self._kinematics.inverse_jacobian(self._aim).T
        limits = self._tracker.limits
        kept = kept_pace(rates, limits.velocity, BEND_SHARE * limits.acceleration, LOOK_NS * NS)
        self._foreseen = first, max(kept, SLOWEST)
        return self._foreseen[1]

    def _look(self, first: int) -> None:
        """The path's velocity (m,), and spin if it is the TCP's, at path times `LOOK_NS` apart, from look `first` on.

        Each is asked once, the nearest first, and few in one tick: a new chunk has cost enough of its own.
        """
        assert self._path is not None
        missing = [k for k in range(first, first + LOOKS + 1) if k not in self._looks]
        for look in missing[:LOOKS_A_TICK]:
            sample = self._path.sample(look * LOOK_NS)
            joint = self._space == "joint"
            self._looks[look] = sample.velocity if joint else np.concatenate([sample.velocity, sample.spin])

    def _follow(self, path_ns: int, now_ns: int, period_s: float) -> TickStatus:
        """Bring the joints one period further, to where the path is at `path_ns`."""
        assert self._path is not None
        status = self._path_status(path_ns)
        if status is TickStatus.HOLDING and self._arrived:
            return status
        sample = self._path.sample(path_ns)
        if self._space == "joint":
            found = self._kinematics.step_to(sample.point, self._aim, period_s)
        else:
            pose = geometry.pose(sample.point, sample.quat)
            found = self._kinematics.solve(pose, self._aim, period_s)
        reached = found.status is IkStatus.REACHED
        velocity = (found.joint_position - self._aim) / period_s
        if reached:
            velocity = self._exact_velocity(sample, found.joint_position, velocity)
        self._aim = found.joint_position
        self._tell_missed(now_ns, found)
        self._drive(velocity, period_s)
        lag = self._lag
        gap = self._path.gap(path_ns) if isinstance(self._path, Blend) else 0.0
        most_gap, most_lag = BEHIND_AT_REST if self._on_arrival else BEHIND
        if gap > most_gap or lag > most_lag:
            self._behind_ns = now_ns + self._config.tick_ns
        self._arrived = status is TickStatus.HOLDING and reached and lag < ARRIVED_RAD
        if self._arrived:
            self._tracker.start(self._aim, np.zeros_like(velocity))
            self._joints = self._tracker.position
        return status if reached else MISSED[found.status]

    def _drive(self, velocity: F64, period_s: float) -> None:
        """The joints, on their way to the aim, which moves at `velocity`."""
        if not self._tracking:
            self._tracker.start(self._aim, velocity)
        else:
            self._tracker.follow(self._aim, velocity, period_s)
        self._joints = self._tracker.position
        self._lag = self._tracker.lag(self._aim)

    def _exact_velocity(self, sample: Sample, joints: F64, mean: F64) -> F64:
        """The joint velocity at a sample's own time; `mean`, that of the period before it, lags by half a period.

        A host that takes the mean for the velocity at the due time would see accelerations that are not there.
        """
        if self._space == "joint":
            return sample.velocity * self._pace.speed
        twist = np.concatenate([sample.velocity, sample.spin]) * self._pace.speed
        return self._kinematics.velocity(joints, mean, twist)

    def _path_status(self, path_ns: int) -> TickStatus:
        assert self._path is not None
        if path_ns >= self._path.rest_ns:
            return TickStatus.HOLDING
        ended = self._plan is None or path_ns > self._plan.knots.end_ns
        return TickStatus.BRAKING if ended else TickStatus.TRACKING

    def _setpoint(self, now_ns: int, joints: F64, velocity: F64) -> Setpoint:
        due_ns = now_ns + self._config.tick_ns
        plan = self._plan
        path_ns = self._pace.path_ns(due_ns)
        if plan is not None:
            self._gripper = plan.knots.gripper_at(path_ns)
        live = plan is not None and path_ns <= plan.knots.end_ns
        self._setpoint_seq += 1
        return Setpoint(
            t_ns=now_ns,
            clock=self._clock,
            seq=self._setpoint_seq,
            t_due_ns=due_ns,
            joint_position=joints.copy(),
            joint_velocity=velocity.copy(),
            gripper=self._gripper,
            source=plan.source if plan is not None and live else "hold",
            chunk_obs_seq=-1 if plan is None else plan.obs_seq,
            chunk_age_ns=-1 if plan is None else now_ns - plan.t_obs_ns,
        )

    def _catch_astray(self, now_ns: int) -> None:
        """If the host's command left our setpoints (safety limited it, or we were away), go on from its command."""
        state = self._states[-1]
        if len(self._sent) < SENT_KEPT or state.t_state_ns < self._sent[0][0]:
            return
        for _, joints in reversed(self._sent):
            if np.abs(state.joint_position_commanded - joints).max() <= ASTRAY_RAD:
                return
        distance = min(np.abs(state.joint_position_commanded - joints).max() for _, joints in self._sent)
        assert self._path is not None
        if state.safety != "hold":  # that it does not follow then is told by the host itself
            text = (
                f"the host's command is {distance:.3f} rad from the nearest setpoint (limit {ASTRAY_RAD} rad)"
            )
            self._tell(now_ns, "reseed", f"{text}; going on from it")
        path_ns = self._pace.path_ns(now_ns)
        still = np.zeros_like(self._gap_limits.velocity)
        self._path = self._blended(self._commanded(state), still, self._path, path_ns, RESUME_S)
        self._start_from(state)

    # Chunks

    def _accept(self, chunk: ActionChunk, request: _Request, now_ns: int) -> ChunkStatus:
        start_ns = now_ns if self._on_arrival or self._resuming else chunk.t_obs_ns
        actions, text = clip_to_bounds(chunk.actions, self._spec, self._bounds)
        if text:
            self._tell(now_ns, "chunk_clipped", f"chunk {chunk.obs_seq} of {chunk.model_id}: {text}")
        begin_ns, here_ns = self._pace.path_ns(start_ns), self._pace.path_ns(now_ns)
        knots = compose(actions, self._spec, self._space, request.anchor, begin_ns)
        if knots.first_after(here_ns) > knots.steps:
            late = (here_ns - knots.end_ns) * 1e-6
            self._tell(
                now_ns, "underrun", f"chunk {chunk.obs_seq} is wholly stale: it ended {late:.1f} ms ago"
            )
            return ChunkStatus.STALE
        earlier = list(self._earlier)
        self._earlier.append(knots)
        if self._config.seam == "ensemble":
            knots = ensembled(knots, earlier, self._config.ensemble_decay)
        try:
            self._path = self._joined(knots, self._pace.path_ns(max(now_ns, self._last_due_ns)))
        except ControlError as error:
            self._tell(now_ns, "chunk_rejected", f"chunk {chunk.obs_seq} of {chunk.model_id}: {error}")
            return ChunkStatus.REJECTED
        due_ns = start_ns + min(self._config.execute_steps, knots.steps) * knots.step_ns
        self._plan = _Plan(chunk.obs_seq, chunk.t_obs_ns, knots, chunk.source, due_ns)
        self._underrun_told = self._on_arrival
        self._arrived = False
        self._resuming = False
        self._hand_control_to(chunk.source, now_ns)
        return ChunkStatus.ACCEPTED

    def _joined(self, knots: Knots, join_ns: int) -> Path:
        """The path through `knots`, taken up at `join_ns`. Raises ControlError if Ruckig finds no motion."""
        if self._config.interpolation == "ruckig":
            new: Path = JerkLimitedPath(knots, self._braking, self._motion_limits)
        else:
            kind = LinearPath if self._config.interpolation == "linear" else CubicPath
            new = kind(knots, self._braking)
        if not self._tracking:
            return new
        present = self._present_path(join_ns)
        here = present.sample(join_ns)
        return self._blended(
            here, acceleration_before(present, here, join_ns), new, join_ns, self._config.blend_s
        )

    def _blended(self, old: Sample, acceleration: F64, new: Path, join_ns: int, shortest_s: float) -> Path:
        """From `old` into `new`, as fast as joints and `catch_up_speed` allow."""
        first, limits = new.sample(join_ns), self._gap_limits
        if self._space == "tcp":
            limits = self._eased(limits, old, first)
        try:
            return Blend(old, acceleration, new, join_ns, shortest_s, limits)
        except ControlError:
            return new  # the joints catch up with it in their own way

    def _eased(self, limits: MotionLimits, old: Sample, first: Sample) -> MotionLimits:
        """`limits` of the TCP, lowered so that motion from `old` to `first` keeps the joints within theirs.

        All of their acceleration may be used: a gap that closes slowly is an overshoot of what the policy asked for.
        """
        rates, joints = self._kinematics.inverse_jacobian(self._aim), self._tracker.limits
        share = eased_share(rates, *old, *first, limits.acceleration, joints.acceleration)
        return MotionLimits(limits.velocity, share * limits.acceleration, limits.jerk)

    def _present_path(self, join_ns: int) -> Path:
        """What a new path takes over from: the present one, or where the joints are if they could not follow it."""
        assert self._path is not None
        if not self._missed_ticks:
            return self._path
        return self._braking.stop(self._sample_of(self._joints, self._tracker.velocity), join_ns)

    def _anchor(self, state: State, t_obs_ns: int) -> Anchor:
        """What was commanded in `state`, and how the path moved then."""
        path_ns = self._pace.path_ns(t_obs_ns)
        moving = self._present_path(path_ns).sample(path_ns)
        if self._space == "joint":
            point, quat = state.joint_position_commanded.copy(), moving.quat
        else:
            pose = state.pose_base_tcp_commanded
            point, quat = pose[:3].copy(), geometry.normalize(pose[3:])
        return Anchor(t_obs_ns, point, quat, moving.velocity, moving.spin)

    def _committed(self, anchor: Anchor, now_ns: int) -> tuple[F64 | None, int]:
        """What the arm goes on with from the anchor, as actions; and how many will have begun when the answer comes.

        That is guessed from the slowest of the last answers: a chunk that arrives sooner agrees with more than it has
        to, one that arrives later would be at odds with what was executed.
        """
        plan = self._plan
        if not self._config.real_time_chunking or plan is None or self._on_arrival or self._resuming:
            return None, 0
        step_ns, begin_ns = plan.knots.step_ns, self._pace.path_ns(anchor.t_obs_ns)
        steps = max(0, min((plan.knots.end_ns - begin_ns) // step_ns, plan.knots.steps))
        path = self._present_path(begin_ns)
        samples = [path.sample(begin_ns + k * step_ns) for k in range(1, steps + 1)]
        points = np.array([anchor.point, *(each.point for each in samples)])
        quats = np.array([anchor.quat, *(each.quat for each in samples)])
        gripper = np.array([plan.knots.gripper_at(begin_ns + k * step_ns) for k in range(steps)])
        arrival_ns = now_ns + max(self._answers_ns, default=0)
        begun = math.ceil((self._pace.path_ns(arrival_ns) - begin_ns) / step_ns)
        return decompose(points, quats, gripper, self._spec, self._space), max(0, min(begun, steps))

    def _drop_plan(self) -> None:
        self._plan = None
        self._path = None
        self._sent = deque(maxlen=SENT_KEPT)
        self._earlier = deque(maxlen=CHUNKS_KEPT)
        self._joints = self._aim = np.empty(0)
        self._lag = 0.0
        self._pace.reset()
        self._behind_ns = -1
        self._looked_at, self._looks, self._foreseen = None, {}, (-1, 1.0)
        self._missed_ticks = 0
        self._gripper = 1.0
        self._last_due_ns = -1
        self._underrun_told = True
        self._arrived = False

    def _fits(self, state: State) -> bool:
        """Whether a state's command is one of this robot; if not, that is told once."""
        n = self._joint_count
        arrays = (state.joint_position_commanded, state.joint_velocity_commanded)
        shapes = [array.shape for array in arrays]
        finite = all(np.isfinite(array).all() for array in (*arrays, state.pose_base_tcp_commanded))
        fits = shapes == [(n,), (n,)] and state.pose_base_tcp_commanded.shape == (7,) and finite
        if not fits and not self._misfit_told:
            text = f"state {state.seq} has commanded joints of shapes {shapes[0]}, {shapes[1]}"
            text += "" if finite else " that are not all finite"
            self._tell(
                state.t_ns, "state_rejected", f"{text}; {self._robot_name} has {n} joints; not followed"
            )
        self._misfit_told = not fits
        return fits

    def _hold_where_commanded(self, state: State) -> None:
        """Forget the plan; stand where the host's command stands."""
        self._drop_plan()
        self._request = None
        still = self._commanded(state, at_rest=True)
        self._path = Stop(
            still, state.t_state_ns, self._braking.deceleration, self._braking.spin_deceleration
        )
        self._gripper = state.gripper_commanded
        self._start_from(state)
        self._arrived = True

    def _start_from(self, state: State) -> None:
        self._tracker.start(state.joint_position_commanded, state.joint_velocity_commanded)
        self._joints = self._aim = self._tracker.position
        self._missed_ticks = 0
        self._sent.clear()
        self._arrived = False

    def _commanded(self, state: State, at_rest: bool = False) -> Sample:
        """The host's command as a sample of a path."""
        speeds = state.joint_velocity_commanded
        return self._sample_of(state.joint_position_commanded, np.zeros_like(speeds) if at_rest else speeds)

    def _sample_of(self, joints: F64, speeds: F64) -> Sample:
        """A state of the joints, rad and rad/s, as a sample of a path in the space of the chunks."""
        if self._space == "joint":
            return Sample(joints.copy(), geometry.identity_pose()[3:], speeds.copy(), np.zeros(3))
        pose, twist = self._kinematics.forward(joints), self._kinematics.twist(joints, speeds)
        return Sample(pose[:3], pose[3:], twist[:3], twist[3:])

    # A person in control

    def _steer(self, command: TeleopCommand, now_ns: int) -> None:
        """Go on as the person asks; without a dead-man, brake and stand. Either way the setpoints are the person's."""
        join_ns = self._pace.path_ns(max(now_ns, self._last_due_ns))
        present = self._present_path(join_ns).sample(join_ns)
        if command.engaged:
            commanded = self._commanded(self._states[-1], at_rest=True)
            knots = self._steering.knots(command, present, commanded, self._aim, self._gripper, join_ns)
            self._path = self._steering.path(knots)
            self._arrived = False
        else:
            self._steering.release()
            knots = self._steering.standing(present, self._gripper, join_ns)
            self._brake(join_ns)
        knots = dataclasses.replace(knots, step_ns=TELEOP_SILENT_NS)
        self._plan = _Plan(-1, command.t_ns, knots, "teleop")
        self._underrun_told = False
        self._hand_control_to("teleop", now_ns)

    def _give_back(self, now_ns: int) -> None:
        """Brake; pictures taken from when the arm stands are the policy's to answer.

        While it stands nothing is missed, so the policy's first chunk begins on arrival: there is nothing to catch up
        with, and the motion starts as softly as the chunk does.
        """
        self._steering.release()
        self._person, self._plan = False, None
        join_ns = self._pace.path_ns(max(now_ns, self._last_due_ns))
        self._brake(join_ns)
        assert self._path is not None
        self._seen_ns = max(self._seen_ns, now_ns, now_ns + self._path.rest_ns - join_ns)
        self._resuming = True
        self._hand_control_to("hold", now_ns)

    def _brake(self, join_ns: int) -> None:
        """Bring the present motion to rest, unless it is."""
        assert self._path is not None
        if join_ns < self._path.rest_ns:
            self._path = self._braking.stop(self._present_path(join_ns).sample(join_ns), join_ns)
            self._arrived = False

    def _hand_control_to(self, source: SetpointSource, now_ns: int) -> None:
        """Put on record who is in control from now on."""
        if source != self._source:
            self._source = source
            self._tell(now_ns, "control", "", source=source)

    # When to look

    def _new_pictures_ns(self) -> int | None:
        """Capture time of the oldest picture of a set that is all new; without cameras, of the newest state."""
        if not self._cameras:
            newest = self._states[-1].t_state_ns
            return newest if self._seen_ns < 0 or newest >= self._seen_ns + self._spec.step_ns else None
        if len(self._frames) < len(self._cameras):
            return None
        oldest = min(frame.t_capture_ns for frame in self._frames.values())
        return oldest if oldest > self._seen_ns else None

    def _chunk_is_due(self, t_obs_ns: int) -> bool:
        """Whether a picture of `t_obs_ns` was taken after enough of the present chunk, to the nearest step.

        It is the picture's time that counts: one from before is not worth asking about when a newer one is on its
        way. Nor, for a while, is one of an arm that was still behind: what it has yet to make up for would be lost,
        since a chunk starts from where the arm was. A chunk that started on arrival is played out first.
        """
        if self._plan is None:
            return True
        latest_ns = self._plan.due_ns + PATIENCE * self._plan.knots.step_ns
        if t_obs_ns <= min(self._behind_ns, latest_ns):
            return False
        if self._on_arrival:
            assert self._path is not None
            return self._pace.path_ns(t_obs_ns) >= self._path.rest_ns
        return t_obs_ns >= self._plan.due_ns - (self._plan.knots.step_ns // 2 if self._cameras else 0)

    def _state_at(self, t_ns: int) -> State | None:
        """The latest state at or before `t_ns`, if it is still kept."""
        return next((state for state in reversed(self._states) if state.t_state_ns <= t_ns), None)

    # Telling

    def _forget_lost_request(self, now_ns: int) -> None:
        request = self._request
        if request is None or now_ns - request.asked_ns < self._timeout_ns:
            return
        waited = (now_ns - request.asked_ns) * NS
        self.forget_request(now_ns, f"it has not answered observation {request.seq} for {waited:.1f} s")

    def _policy_is_back(self, now_ns: int) -> None:
        if self._policy_lost:
            self._policy_lost = False
            self._tell(now_ns, "peer_returned", "the policy server answers again", peer=POLICY)

    def _tell_underrun(self, now_ns: int, path_ns: int) -> None:
        plan = self._plan
        if plan is None or self._underrun_told or path_ns <= plan.knots.end_ns:
            return
        self._underrun_told = True
        if plan.source == "teleop":
            self._brake(path_ns)
            text = f"no input from the teleoperator for {TELEOP_SILENT_NS * 1e-6:.0f} ms; braking to a hold"
            self._tell(now_ns, "teleop_silent", text)
            return
        self._tell(
            now_ns,
            "underrun",
            f"chunk {plan.obs_seq} has run out and no newer one is here; braking to a hold",
        )

    def _tell_missed(self, now_ns: int, found: Solution) -> None:
        """Tell a target that is missed for longer than a catch-up takes, once until it is reached again."""
        self._missed_ticks = 0 if found.status is IkStatus.REACHED else self._missed_ticks + 1
        if self._missed_ticks == MISSED_TICKS:
            text = f"the target is missed by {found.error_m * 1e3:.1f} mm and {found.error_rad:.3f} rad"
            self._tell(
                now_ns, f"ik_{found.status.value}", f"{text}: out of reach, or faster than the joints are"
            )

    def _tell(self, now_ns: int, kind: str, text: str, **data: str | float | int | bool) -> None:
        event = Event(t_ns=now_ns, clock=self._clock, kind=kind, source="controller", text=text, data=data)
        self._events.append(event)


def _motion_limits(config: ControllerConfig, joints: JointLimits, space: Space) -> MotionLimits:
    """Limits of a jerk-limited path: the config's for the TCP, else the joints' own."""
    if space == "tcp":
        return _tcp_limits(config.ruckig_velocity, config.ruckig_acceleration, config.ruckig_jerk)
    return _joint_limits(config, joints)


def _gap_limits(config: ControllerConfig, joints: JointLimits, space: Space) -> MotionLimits:
    """Limits of what is added to a path while a gap is closed."""
    if space == "tcp":
        return _tcp_limits(config.catch_up_speed, config.catch_up_acceleration, config.catch_up_jerk)
    return _joint_limits(config, joints)


def _tcp_limits(velocity: float, acceleration: float, jerk: float) -> MotionLimits:
    """The same in all directions; a radian counts `LEVER_M`."""
    rows = np.outer([velocity, acceleration, jerk], [1.0] * 3 + [1.0 / LEVER_M] * 3)
    return MotionLimits(*rows)


def _joint_limits(config: ControllerConfig, joints: JointLimits) -> MotionLimits:
    """Of the joints, and of the orientation, which stands still there."""
    still = _tcp_limits(config.ruckig_velocity, config.ruckig_acceleration, config.ruckig_jerk)
    pairs = zip(
        (joints.velocity, joints.acceleration, joints.jerk),
        (still.velocity, still.acceleration, still.jerk),
        strict=True,
    )
    return MotionLimits(*(np.concatenate([own, turn[3:]]) for own, turn in pairs))
