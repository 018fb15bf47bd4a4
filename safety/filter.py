"""The safety filter: the last thing that any command passes before a driver.

`filter(memory, measured, setpoint | None, now_ns) -> (command, memory, report)` is pure: what it knows of the past is
in `memory`. Whatever arrives, the commanded motion stays within every limit of position, velocity, acceleration and
jerk, of joints and TCP, of boxes and distances; see `motion` for why. It is a software limiter, not a rated safety
function.
"""

from __future__ import annotations

import math

import numpy as np
from msgspec.structs import replace

from reflexarc.configs.errors import SafetyError
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety import intake, states
from reflexarc.safety.contact import Contact, moves_away
from reflexarc.safety.gripper import least_opening, squeezed
from reflexarc.safety.integrity import Integrity, Trust
from reflexarc.safety.kinematics import Kinematics
from reflexarc.safety.limits import Limits
from reflexarc.safety.memory import Memory
from reflexarc.safety.motion import MotionLimiter, Step, halt
from reflexarc.safety.payload import check_payload
from reflexarc.safety.reference import target_at
from reflexarc.safety.surroundings import Surroundings
from reflexarc.wire.messages import (
    F64,
    HostAction,
    Intervention,
    JointCommand,
    Measured,
    SafetyReport,
    SafetyState,
    Setpoint,
)

HOLD_REASONS = {
    "setpoint_age": "controller silent: no fresh setpoint",
    "chunk_age": "policy silent: its last chunk is too old",
    "start_mismatch": "the first setpoint is too far from where the arm is",
    "clock": "the setpoint is stamped by another clock",
    "shape": "the setpoint has a wrong shape",
    "finite": "the setpoint is not finite",
    "contact": "something presses: only motion away from it is followed",
    "pushed": "the arm was pushed: a setpoint that begins where it is is needed",
    "pushed_far": "the arm was pushed far away: enable to go on",
}


# Motion away from what presses must have taken the force away within so long; else the arm gives way instead.
LEAVE_NS = 100_000_000
# Where the servo gives way to what presses: wherever it is under power and nobody guides the arm by hand.
YIELDING: frozenset[SafetyState] = states.LATCHED | {"hold"}


class SafetyFilter:
    """Limits, watchdogs and the state machine of one robot. Holds configuration only."""

    def __init__(self, robot: RobotConfig, safety: SafetyConfig, clock: str = "monotonic") -> None:
        """clock: name of the clock of `now_ns`; a setpoint stamped by another one is refused.

        Raises SafetyError if the limits leave no room, or exceed what the maker publishes and do not say so.
        """
        check_payload(robot, safety)
        self.kinematics = Kinematics(robot, safety.held_tool)
        limits = Limits.of(robot, safety, self.kinematics.reach)
        self._safety = safety
        self._gripper = robot.gripper
        self._clock = clock
        self._stop_category = robot.stop_category
        around = Surroundings.of(robot, safety, self.kinematics, limits.lower, limits.upper)
        self._motion = MotionLimiter(self.kinematics, limits, around)
        self.limits = self._motion.limits
        self._contact = Contact(robot, safety)
        self._integrity = Integrity(robot, safety)
        self._way_ns = round(safety.contact.sustained_s * 1e9)
        self._hold_ns = round(safety.hold_after_s * 1e9)
        self._stop_ns = round(safety.stop_after_s * 1e9)
        self._chunk_ns = round(safety.chunk_age_limit_s * 1e9)
        self._silence_ns = round(safety.driver_silence_s * 1e9)
        self._ahead_ns = round(safety.integrity.ahead_s * 1e9)

    def start(self, measured: Measured, now_ns: int) -> Memory:
        """Memory of an arm that stands where `measured` says, in state `ready`. SafetyError if not finite."""
        position = np.array(measured.joint_position, dtype=np.float64)
        if position.shape != (len(self.limits.names),) or not _finite(measured):
            raise SafetyError(
                f"cannot start from joint position {position.tolist()} and gripper {measured.gripper}: "
                f"{len(self.limits.names)} finite values are needed"
            )
        gripper = min(max(float(measured.gripper), 0.0), 1.0)
        return Memory(
            state="ready",
            mode="active",
            reason="",
            now_ns=now_ns,
            motion=self.kinematics.rest(position),
            stop=np.zeros((0, position.size)),
            view=self.kinematics.view(position),
            gripper=gripper,
            gripper_goal=gripper,
            reported="ready",
        )

    def filter(
        self, memory: Memory, measured: Measured, setpoint: Setpoint | None, now_ns: int
    ) -> tuple[JointCommand, Memory, SafetyReport]:
        """One tick: the command to write, the new memory, and what was limited or changed."""
        found: list[Intervention] = []
        earlier = memory.reported
        memory = self._watch(memory, measured, now_ns, found)
        if setpoint is not None and memory.state in states.ENABLED and not memory.deaf:
            memory = self._receive(memory, measured, setpoint, found)
        if memory.state in states.ENABLED and not memory.deaf:
            memory = self._judge_contact(self._judge_age(memory, found), found)
        elif memory.state in states.ENABLED:
            memory = self._judge_deaf(memory, setpoint, found)
        memory, speed_scale = self._move(memory, measured, found)
        memory = self._yield(memory, found)
        report = SafetyReport(
            t_ns=now_ns,
            clock=self._clock,
            seq=memory.seq,
            state=memory.state,
            previous_state=earlier,
            interventions=found,
            reason=memory.reason,
            speed_scale=speed_scale,
        )
        return self._command(memory), memory, report

    def request(self, memory: Memory, action: HostAction, now_ns: int) -> tuple[Memory, bool, str]:
        """A request from the local console: the new memory, whether it was granted, and a line about it.

        Never causes motion: `enable` begins at rest, and moves only towards a setpoint made after it.
        """
        text = states.refusal(memory.state, action)
        if not text and action in ("reset", "enable") and memory.state in states.STILL and not memory.at_rest:
            text = f"{action} refused: the arm is still stopping"
        if text:
            return memory, False, text
        target = states.TRANSITIONS[action][memory.state]
        if action in ("status", "speed"):  # pace is the controller's: it changes nothing here
            return memory, True, f"{memory.state}: {memory.reason}" if memory.reason else memory.state
        if action == "enable":
            return self._enable(memory, target, now_ns)
        if action == "reset":
            memory = self._resumed(memory)
        mode = "reduced" if action == "reduce" else memory.mode
        held = target == "hold" or (memory.held and target in states.ENABLED)
        # A silence that has begun is not excused by a hold: it may still become a stop.
        silent = held and (memory.silent or memory.reason == HOLD_REASONS["setpoint_age"])
        reason = f"{action} requested"
        memory = replace(memory, state=target, mode=mode, held=held, silent=silent, reason=reason)
        return memory, True, f"{action}: {target}"

    def trip(self, memory: Memory, reason: str) -> Memory:
        """Memory with a latched protective stop for a cause that the filter cannot see itself."""
        if memory.state not in states.ENABLED:
            return memory
        return replace(memory, state="protective_stop", reason=reason)

    def placed(self, memory: Memory, position: F64, t_ns: int) -> Memory:
        """Memory of an arm that stands at (n,) rad though it was told to stand elsewhere: its command follows it there.

        For commands that the arm does not take: once it does again, it must not leap to where they were. Unchanged
        while enabled, while the commanded motion has not come to rest, and if the reading, of t_ns, is old: a driver
        that is written but not read would be led to where the arm was.
        """
        if memory.state in states.ENABLED or not memory.at_rest or not np.isfinite(position).all():
            return memory
        if memory.now_ns - t_ns > self._silence_ns:
            return memory
        position = np.array(position, dtype=np.float64)
        return replace(
            memory,
            motion=self.kinematics.rest(position),
            stop=np.zeros((0, position.size)),
            view=self.kinematics.view(position),
        )

    def outside(self, position: F64) -> str:
        """Which limit of place joint position (n,) rad is outside of, in words; empty if none."""
        return self._motion.outside(position)

    def released(self, memory: Memory) -> bool:
        """Whether the arm is to hold by its own brakes: commands are not written, and follow the measurement."""
        if memory.state == "protective_stop" and self._stop_category == 2:
            return False
        return memory.at_rest and memory.state in states.RELEASING

    def _enable(self, memory: Memory, target: SafetyState, now_ns: int) -> tuple[Memory, bool, str]:
        outside = self._motion.outside(memory.position)
        if outside:
            target = "recovery"
        if memory.state == target and not memory.held:
            return memory, True, f"already {target}"
        if memory.giving_way:
            return memory, False, f"enable refused: the arm gives way before it stops: {memory.giving_way}"
        off, joint = self._off(memory)
        if off > self._safety.start_mismatch_rad:
            limit = f"limit {self._safety.start_mismatch_rad:g} rad"
            text = f"{joint} is {off:.2f} rad from where it is commanded to be ({limit}); reset first"
            return memory, False, f"enable refused: {text}"
        doubt = self._contact.payload_doubt(memory.touch)
        memory = replace(
            memory,
            state=target,
            mode=target,
            reason=outside or "enable requested",
            gripper_goal=memory.gripper,
            last=None,
            before=None,
            last_seq=-1,
            refused="",
            anew=False,
            held=False,
            silent=False,
            bad_count=0,
            enabled_ns=now_ns,
        )
        notes = "; ".join(note for note in (outside, doubt) if note)
        return memory, True, f"enable: {target}" + (f" ({notes})" if notes else "")

    def _off(self, memory: Memory) -> tuple[float, str]:
        """How far the joint that is furthest from its command is from it, rad, and which; by the newest reading."""
        if memory.touch.position is None:
            return 0.0, ""
        off = np.abs(memory.touch.position - memory.position)
        worst = int(np.argmax(off))
        return float(off[worst]), self.limits.names[worst]

    def _resumed(self, memory: Memory) -> Memory:
        """For a reset: an arm that does not stand where it is told is told to stand where it is. Nothing moves."""
        if memory.touch.position is None or self._off(memory)[0] <= self._safety.integrity.resume_rad:
            return memory
        return self.placed(memory, memory.touch.position, memory.touch.t_ns)

    def _watch(self, memory: Memory, measured: Measured, now_ns: int, found: list[Intervention]) -> Memory:
        """Clock, driver, encoders and contact: each may latch a stop."""
        trust, fault = self._integrity.clock(memory.trust, memory.now_ns, now_ns)
        if fault is not None:
            memory = self._latch_fault(memory, found, fault, self._integrity.words(fault))
        finite = _finite(measured)
        touch = memory.touch
        if finite:
            touch = self._contact.feel(touch, measured, memory.view.jacobian, memory.view.pose[3:])
        memory = replace(
            memory, now_ns=max(now_ns, memory.now_ns), touch=touch, trust=trust, seq=memory.seq + 1
        )
        if memory.state not in states.ENABLED:
            return replace(memory, trust=Trust(late=trust.late), giving_way="")
        if not finite:
            return self._latch(
                memory, found, "finite", "measured", 0, 0, "the driver's reading is not finite"
            )
        age = memory.now_ns - measured.t_ns
        if age > self._silence_ns:
            text = f"driver silent for {age * 1e-6:.0f} ms (limit {self._silence_ns * 1e-6:.0f} ms)"
            return self._latch(memory, found, "driver_silence", "driver", age, self._silence_ns, text)
        trust, fault = self._integrity.encoders(trust, measured, memory.position)
        memory = replace(memory, trust=trust)
        if fault is None and memory.yielding is None and not touch.pressed:
            fault = self._integrity.tracking(measured, memory.position)
        if fault is not None:
            return self._latch_fault(memory, found, fault, self._integrity.words(fault))
        return self._watch_contact(memory, found)

    def _watch_contact(self, memory: Memory, found: list[Intervention]) -> Memory:
        """A contact that was too high or took too long: give way, then stop. Standing on it would keep its force."""
        touch = memory.touch
        if not memory.giving_way:
            text = self._contact.verdict(touch)
            if not text:
                return memory
            found.append(touch.intervention())
            return replace(memory, state="hold", reason=text, giving_way=text, way_ns=memory.now_ns)
        if touch.pressed and memory.now_ns - memory.way_ns < self._way_ns:
            return memory
        return self._latch_fault(memory, found, touch.intervention(), memory.giving_way)

    def _judge_contact(self, memory: Memory, found: list[Intervention]) -> Memory:
        """While something presses, follow only what moves away from it."""
        if memory.yielding is not None:
            return self._hold(memory, "contact")
        if not memory.touch.pressed or memory.state not in states.FOLLOWING or memory.last is None:
            return memory
        target = target_at(memory.before, memory.last, memory.now_ns, self.limits)
        if (
            target is not None
            and memory.touch.high_ns < LEAVE_NS
            and moves_away(memory.touch, target.position - memory.position)
            and moves_away(memory.touch, memory.velocity)
        ):
            return memory
        found.append(memory.touch.intervention())
        return self._hold(memory, "contact")

    def _yield(self, memory: Memory, found: list[Intervention]) -> Memory:
        """Something presses: the servo is told to stay where the arm is, not where it was on its way to.

        The commanded motion comes to rest meanwhile by its stored stop; then it is said to be where the arm is. Nothing
        moves by that, since the servo was there already.
        """
        touch = memory.touch
        place = memory.yielding
        pushed = touch.pressed and touch.position is not None
        if pushed and memory.state in YIELDING:
            place = touch.position
        if place is None or self.released(memory):
            return memory if memory.yielding is None else replace(memory, yielding=None)
        began = memory.position if memory.yielding is None else memory.pushed_from
        memory = replace(memory, yielding=place, pushed_from=began)
        if not memory.at_rest:
            return memory
        inside = np.clip(place, self.limits.lower, self.limits.upper)
        memory = replace(
            memory,
            motion=self.kinematics.rest(inside),
            stop=np.zeros((0, inside.size)),
            view=self.kinematics.view(inside),
            yielding=place if pushed else None,
            trust=memory.trust.moved(inside - memory.position),  # the command has, and nothing else
        )
        if memory.state in states.ENABLED:
            memory = self._pushed(memory)
        outside = ""
        if memory.state in states.ENABLED and memory.mode != "recovery":
            outside = self._motion.outside(inside)
        if outside:
            reason = f"pushed out of the limits: {outside}"
            found.append(_intervention("pushed_out", touch.rule, touch.asked, touch.allowed))
            return replace(memory, state="protective_stop", reported="protective_stop", reason=reason)
        return memory

    def _pushed(self, memory: Memory) -> Memory:
        """An arm that was pushed does not go back by itself: whoever leads it must begin anew, from where it is.

        If that is far from where it was, a person has to enable it first: it might be he who pushed.
        """
        begun = memory.pushed_from
        assert begun is not None
        memory = replace(memory, anew=True)
        if np.abs(memory.position - begun).max() <= self._safety.start_mismatch_rad:
            return memory
        return replace(self._hold(memory, "pushed_far"), held=True)

    def _command(self, memory: Memory) -> JointCommand:
        """What is written. Copies: whoever is given a command may change it, the memory of it stays."""
        position, velocity = memory.position, memory.velocity
        if memory.yielding is not None:
            position, velocity = memory.yielding, np.zeros_like(velocity)
        return JointCommand(
            joint_position=position.copy(), joint_velocity=velocity.copy(), gripper=memory.gripper
        )

    def _judge_deaf(self, memory: Memory, setpoint: Setpoint | None, found: list[Intervention]) -> Memory:
        """A person's hold: a controller that was silent when it began, and stays so, is a stop all the same."""
        last = memory.last
        if not memory.silent or last is None:
            return memory
        if setpoint is not None and intake.is_new(memory, setpoint):
            return replace(memory, silent=False)
        age = max(memory.now_ns - memory.received_ns, memory.now_ns - last.t_ns)
        return self._latch_silence(memory, found, age) if age > self._stop_ns else memory

    def _receive(
        self, memory: Memory, measured: Measured, setpoint: Setpoint, found: list[Intervention]
    ) -> Memory:
        """Take a new setpoint, or refuse it; an old or repeated one changes nothing."""
        if not intake.is_new(memory, setpoint):
            if memory.enabled_ns <= setpoint.t_ns and setpoint.seq < memory.last_seq:
                found.append(_intervention("sequence", "setpoint", setpoint.seq, memory.last_seq))
            return memory
        newest_ns = memory.now_ns + self._ahead_ns
        fault = intake.malformed(setpoint, len(self.limits.names), self._clock, newest_ns)
        if fault is not None:
            count = memory.bad_count + 1
            memory = replace(memory, bad_count=count, refused=fault.rule, last_seq=setpoint.seq)
            found.append(fault)
            if count >= self._safety.integrity.malformed_setpoints:
                text = f"{count} malformed setpoints in a row ({fault.rule}: {fault.field})"
                return replace(memory, state="protective_stop", reason=text)
            return memory
        if memory.last is None or memory.anew:
            fault = intake.mismatch(setpoint, measured, self._safety, self.limits)
            if fault is not None:
                found.append(fault)
                return replace(memory, refused=fault.rule, last_seq=setpoint.seq)
        return intake.take(memory, intake.within_limits(setpoint, self.limits, found))

    def _judge_age(self, memory: Memory, found: list[Intervention]) -> Memory:
        """Follow, hold or latch, by the age of the newest good setpoint and of its chunk."""
        last, now = memory.last, memory.now_ns
        if last is None:
            return self._hold(memory, memory.refused) if memory.refused else self._follow(memory)
        age = max(now - memory.received_ns, now - last.t_ns)
        if age > self._stop_ns:
            return self._latch_silence(memory, found, age)
        if memory.refused or memory.anew:
            return self._hold(memory, memory.refused or "pushed")
        if age > self._hold_ns:
            if memory.state != "hold":
                found.append(_intervention("setpoint_age", "setpoint", age, self._hold_ns))
            return self._hold(memory, "setpoint_age")
        chunk_age = intake.chunk_age_ns(last, now)
        if chunk_age > self._chunk_ns or (chunk_age < 0 and last.source == "policy"):
            if memory.state != "hold":
                found.append(_intervention("chunk_age", "setpoint", chunk_age, self._chunk_ns))
            return self._hold(memory, "chunk_age")
        return self._follow(memory)

    def _hold(self, memory: Memory, rule: str) -> Memory:
        reason = HOLD_REASONS[rule]
        if memory.state == "hold" and memory.reason == reason:
            return memory
        return replace(memory, state="hold", reason=reason)

    def _follow(self, memory: Memory) -> Memory:
        if memory.state == memory.mode:
            return memory
        return replace(memory, state=memory.mode, reason="")

    def _latch_silence(self, memory: Memory, found: list[Intervention], age: int) -> Memory:
        text = f"controller silent: no setpoint for {age * 1e-6:.0f} ms (limit {self._stop_ns * 1e-6:.0f} ms)"
        return self._latch(memory, found, "setpoint_age", "setpoint", age, self._stop_ns, text)

    def _latch_fault(
        self, memory: Memory, found: list[Intervention], fault: Intervention, text: str
    ) -> Memory:
        return self._latch(memory, found, fault.rule, fault.field, fault.asked, fault.allowed, text)

    def _latch(
        self,
        memory: Memory,
        found: list[Intervention],
        rule: str,
        field: str,
        asked: float,
        allowed: float,
        text: str,
    ) -> Memory:
        if memory.state not in states.ENABLED:
            return memory
        found.append(_intervention(rule, field, asked, allowed))
        return replace(memory, state="protective_stop", reason=text)

    def _move(self, memory: Memory, measured: Measured, found: list[Intervention]) -> tuple[Memory, float]:
        """The commanded state of this tick, and how much of the motion asked for was allowed."""
        if self.released(memory):
            return self._follow_measured(memory, measured), 1.0
        step = self._step(memory, found)
        motion, view, gripper, goal = memory.motion, memory.view, memory.gripper, memory.gripper_goal
        state, mode, reason = memory.state, memory.mode, memory.reason
        if step.velocity.any() or not motion.still():
            motion, view = self.kinematics.advance(motion, step.velocity, self.limits.dt)
            if state == "recovery" and not self._motion.outside(motion.position):
                state, mode, reason = "reduced", "reduced", "back inside the limits"
        if state in states.FOLLOWING and memory.last is not None:
            goal = memory.last.gripper
            most = self.limits.gripper_step
            gripper += min(max(goal - gripper, -most), most)
            least = least_opening(self._gripper, self._safety, measured.gripper)
            if gripper < least:
                found.append(squeezed(gripper, least))
                gripper = min(least, memory.gripper + most)
        memory = replace(
            memory,
            state=state,
            mode=mode,
            reason=reason,
            reported=state,
            motion=motion,
            stop=step.stop,
            view=view,
            gripper=gripper,
            gripper_goal=goal,
        )
        return memory, step.speed_scale

    def _step(self, memory: Memory, found: list[Intervention]) -> Step:
        if memory.state not in states.FOLLOWING or memory.last is None:
            return Step(*halt(memory.velocity, memory.stop), [], 1.0)
        target = target_at(memory.before, memory.last, memory.now_ns, self.limits)
        if target is None:
            late = memory.now_ns - memory.last.t_due_ns
            found.append(_intervention("extrapolation", "setpoint", late, 0))
            return Step(*halt(memory.velocity, memory.stop), [], 1.0)
        scale = 1.0 if memory.state == "active" else self.limits.reduced_scale
        step = self._motion.step(memory.motion, memory.stop, target, scale)
        found.extend(step.interventions)
        return step

    def _follow_measured(self, memory: Memory, measured: Measured) -> Memory:
        if not _finite(measured):
            return replace(memory, reported=memory.state)
        position = np.array(measured.joint_position, dtype=np.float64)
        gripper = min(max(float(measured.gripper), 0.0), 1.0)
        return replace(
            memory,
            reported=memory.state,
            motion=self.kinematics.rest(position),
            stop=np.zeros((0, position.size)),
            view=self.kinematics.view(position),
            gripper=gripper,
            gripper_goal=gripper,
        )


def _finite(measured: Measured) -> bool:
    """Whether joints and gripper are finite."""
    joints = np.isfinite(measured.joint_position).all() and np.isfinite(measured.joint_velocity).all()
    return bool(joints) and math.isfinite(measured.gripper)


def _intervention(rule: str, field: str, asked: float, allowed: float) -> Intervention:
    return Intervention(
        rule=rule,
        field=field,
        asked=float(asked),
        allowed=float(allowed),
        margin=float(allowed) - float(asked),
    )
