"""The safety filter: the last thing that any command passes before a driver.

`filter(memory, measured, setpoint | None, now_ns) -> (command, memory, report)` is pure: what it knows of the past is
in `memory`. Whatever arrives, the commanded motion stays within the limits of joint position, velocity and
acceleration, of TCP speed and of the workspace box; see `motion` for why. It is a software limiter, not a rated
safety function.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from reflexarc.configs.errors import SafetyError
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety import intake, states
from reflexarc.safety.kinematics import Kinematics
from reflexarc.safety.limits import Limits
from reflexarc.safety.memory import Memory
from reflexarc.safety.motion import Motion
from reflexarc.safety.reference import target_at
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
}


class SafetyFilter:
    """Limits, watchdogs and the state machine of one robot. Holds configuration only."""

    def __init__(self, robot: RobotConfig, safety: SafetyConfig, clock: str = "monotonic") -> None:
        """clock: name of the clock of `now_ns`; a setpoint stamped by another one is refused."""
        self.kinematics = Kinematics(robot)
        self.limits = Limits.of(robot, safety)
        self._safety = safety
        self._clock = clock
        self._stop_category = robot.stop_category
        self._motion = Motion(self.limits, self.kinematics.bend)
        self._hold_ns = round(safety.hold_after_s * 1e9)
        self._stop_ns = round(safety.stop_after_s * 1e9)
        self._chunk_ns = round(safety.chunk_age_limit_s * 1e9)
        self._silence_ns = round(safety.driver_silence_s * 1e9)

    def start(self, measured: Measured, now_ns: int) -> Memory:
        """Memory of an arm that stands where `measured` says, in state `ready`. SafetyError if not finite."""
        position = np.array(measured.joint_position, dtype=np.float64)
        if position.shape != (len(self.limits.names),) or not _finite(measured):
            raise SafetyError(
                f"cannot start from joint position {position.tolist()} and gripper {measured.gripper}: "
                f"{len(self.limits.names)} finite values are needed"
            )
        position.flags.writeable = False
        gripper = min(max(float(measured.gripper), 0.0), 1.0)
        return Memory(
            state="ready",
            mode="active",
            reason="",
            now_ns=now_ns,
            position=position,
            velocity=np.zeros_like(position),
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
        if setpoint is not None and memory.state in states.ENABLED and not memory.held:
            memory = self._receive(memory, measured, setpoint, found)
        if memory.state in states.ENABLED and not memory.held:
            memory = self._judge_age(memory, found)
        memory = self._move(memory, measured, found)
        report = SafetyReport(
            t_ns=now_ns,
            clock=self._clock,
            seq=memory.seq,
            state=memory.state,
            previous_state=earlier,
            interventions=found,
            reason=memory.reason,
        )
        command = JointCommand(
            joint_position=memory.position, joint_velocity=memory.velocity, gripper=memory.gripper
        )
        return command, memory, report

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
        if action == "status":
            return memory, True, f"{memory.state}: {memory.reason}" if memory.reason else memory.state
        if action == "enable":
            return self._enable(memory, target, now_ns)
        mode = "reduced" if action == "reduce" else memory.mode
        held = target == "hold" or (memory.held and target in states.ENABLED)
        reason = f"{action} requested"
        memory = dataclasses.replace(memory, state=target, mode=mode, held=held, reason=reason)
        return memory, True, f"{action}: {target}"

    def trip(self, memory: Memory, reason: str) -> Memory:
        """Memory with a latched protective stop for a cause that the filter cannot see itself."""
        if memory.state not in states.ENABLED:
            return memory
        return dataclasses.replace(memory, state="protective_stop", reason=reason)

    def released(self, memory: Memory) -> bool:
        """Whether the arm is to hold by its own brakes: commands are not written, and follow the measurement."""
        if memory.state == "protective_stop" and self._stop_category == 2:
            return False
        return memory.at_rest and memory.state in states.RELEASING

    def _enable(self, memory: Memory, target: SafetyState, now_ns: int) -> tuple[Memory, bool, str]:
        outside = self.limits.outside(memory.position, memory.view.point)
        if outside:
            target = "recovery"
        if memory.state == target and not memory.held:
            return memory, True, f"already {target}"
        memory = dataclasses.replace(
            memory,
            state=target,
            mode=target,
            reason=outside or "enable requested",
            gripper_goal=memory.gripper,
            last=None,
            before=None,
            last_seq=-1,
            refused="",
            held=False,
            bad_count=0,
            wrench_count=0,
            enabled_ns=now_ns,
        )
        return memory, True, f"enable: {target}" + (f" ({outside})" if outside else "")

    def _watch(self, memory: Memory, measured: Measured, now_ns: int, found: list[Intervention]) -> Memory:
        """Clock, driver and wrist wrench: each may latch a stop."""
        if now_ns < memory.now_ns:
            lost = now_ns - memory.now_ns
            memory = self._latch(memory, found, "clock", "now", lost, 0, "the clock went backwards")
        fresh = measured.t_ns != memory.reading_ns
        count = memory.wrench_count
        if fresh:
            count = count + 1 if self._wrench_too_high(measured) else 0
        memory = dataclasses.replace(
            memory,
            now_ns=max(now_ns, memory.now_ns),
            reading_ns=measured.t_ns,
            wrench_count=count,
            seq=memory.seq + 1,
        )
        if memory.state not in states.ENABLED:
            return memory
        if not _finite(measured):
            return self._latch(
                memory, found, "finite", "measured", 0, 0, "the driver's reading is not finite"
            )
        age = memory.now_ns - measured.t_ns
        if age > self._silence_ns:
            text = f"driver silent for {age * 1e-6:.0f} ms (limit {self._silence_ns * 1e-6:.0f} ms)"
            return self._latch(memory, found, "driver_silence", "driver", age, self._silence_ns, text)
        if count >= self._safety.wrench_ticks:
            return self._latch_wrench(memory, measured, found)
        return memory

    def _wrench_too_high(self, measured: Measured) -> bool:
        force, torque = _norms(measured)
        # Written so that a NaN counts as too high.
        return not (force <= self._safety.force_ceiling and torque <= self._safety.torque_ceiling)

    def _latch_wrench(self, memory: Memory, measured: Measured, found: list[Intervention]) -> Memory:
        force, torque = _norms(measured)
        ceiling = self._safety.force_ceiling
        if not force <= ceiling:
            text = f"wrist force {force:.1f} N above its ceiling {ceiling} N"
            return self._latch(memory, found, "wrist_force", "wrist", force, ceiling, text)
        ceiling = self._safety.torque_ceiling
        text = f"wrist torque {torque:.2f} N·m above its ceiling {ceiling} N·m"
        return self._latch(memory, found, "wrist_torque", "wrist", torque, ceiling, text)

    def _receive(
        self, memory: Memory, measured: Measured, setpoint: Setpoint, found: list[Intervention]
    ) -> Memory:
        """Take a new setpoint, or refuse it; an old or repeated one changes nothing."""
        if not intake.is_new(memory, setpoint):
            if memory.enabled_ns <= setpoint.t_ns and setpoint.seq < memory.last_seq:
                found.append(_intervention("sequence", "setpoint", setpoint.seq, memory.last_seq))
            return memory
        fault = intake.malformed(setpoint, len(self.limits.names), self._clock)
        if fault is not None:
            count = memory.bad_count + 1
            memory = dataclasses.replace(memory, bad_count=count, refused=fault.rule, last_seq=setpoint.seq)
            found.append(fault)
            if count >= intake.MALFORMED_LATCH:
                text = f"{count} malformed setpoints in a row ({fault.rule}: {fault.field})"
                return dataclasses.replace(memory, state="protective_stop", reason=text)
            return memory
        if memory.last is None:
            fault = intake.mismatch(setpoint, measured, self._safety, self.limits)
            if fault is not None:
                found.append(fault)
                return dataclasses.replace(memory, refused=fault.rule, last_seq=setpoint.seq)
        return intake.take(memory, intake.within_limits(setpoint, self.limits, found))

    def _judge_age(self, memory: Memory, found: list[Intervention]) -> Memory:
        """Follow, hold or latch, by the age of the newest good setpoint and of its chunk."""
        last, now = memory.last, memory.now_ns
        if last is None:
            return self._hold(memory, memory.refused) if memory.refused else self._follow(memory)
        age = max(now - memory.received_ns, now - last.t_ns)
        if age > self._stop_ns:
            text = f"controller silent: no setpoint for {age * 1e-6:.0f} ms (limit {self._stop_ns * 1e-6:.0f} ms)"
            return self._latch(memory, found, "setpoint_age", "setpoint", age, self._stop_ns, text)
        if memory.refused:
            return self._hold(memory, memory.refused)
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
        return dataclasses.replace(memory, state="hold", reason=reason)

    def _follow(self, memory: Memory) -> Memory:
        if memory.state == memory.mode:
            return memory
        return dataclasses.replace(memory, state=memory.mode, reason="")

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
        return dataclasses.replace(memory, state="protective_stop", reason=text)

    def _move(self, memory: Memory, measured: Measured, found: list[Intervention]) -> Memory:
        """The commanded state of this tick."""
        if self.released(memory):
            return self._follow_measured(memory, measured)
        velocity = self._velocity(memory, found)
        position, view, gripper, goal = memory.position, memory.view, memory.gripper, memory.gripper_goal
        state, mode, reason = memory.state, memory.mode, memory.reason
        if velocity.any():
            position = memory.position + velocity * self.limits.dt
            position.flags.writeable = velocity.flags.writeable = False
            view = self.kinematics.view(position)
            if state == "recovery" and not self.limits.outside(position, view.point):
                state, mode, reason = "reduced", "reduced", "back inside the limits"
        if state in states.FOLLOWING and memory.last is not None:
            goal = memory.last.gripper
            step = self.limits.gripper_step
            gripper += min(max(goal - gripper, -step), step)
        return dataclasses.replace(
            memory,
            state=state,
            mode=mode,
            reason=reason,
            reported=state,
            position=position,
            velocity=velocity,
            view=view,
            gripper=gripper,
            gripper_goal=goal,
        )

    def _velocity(self, memory: Memory, found: list[Intervention]) -> F64:
        if memory.state not in states.FOLLOWING or memory.last is None:
            return self._motion.stop(memory.velocity) if memory.velocity.any() else memory.velocity
        target = target_at(memory.before, memory.last, memory.now_ns, self.limits)
        if target is None:
            late = memory.now_ns - memory.last.t_due_ns
            found.append(_intervention("extrapolation", "setpoint", late, 0))
            return self._motion.stop(memory.velocity)
        scale = 1.0 if memory.state == "active" else self.limits.reduced_scale
        velocity, limited = self._motion.step(memory.position, memory.velocity, memory.view, target, scale)
        found.extend(limited)
        return velocity

    def _follow_measured(self, memory: Memory, measured: Measured) -> Memory:
        if not _finite(measured):
            return dataclasses.replace(memory, reported=memory.state)
        position = np.array(measured.joint_position, dtype=np.float64)
        position.flags.writeable = False
        gripper = min(max(float(measured.gripper), 0.0), 1.0)
        return dataclasses.replace(
            memory,
            reported=memory.state,
            position=position,
            view=self.kinematics.view(position),
            gripper=gripper,
            gripper_goal=gripper,
        )


def _finite(measured: Measured) -> bool:
    """Whether joints and gripper are finite."""
    joints = np.isfinite(measured.joint_position).all() and np.isfinite(measured.joint_velocity).all()
    return bool(joints) and math.isfinite(measured.gripper)


def _norms(measured: Measured) -> tuple[float, float]:
    """Magnitudes of force, N, and torque, N·m."""
    fx, fy, fz, tx, ty, tz = measured.wrench_tcp.tolist()
    return math.sqrt(fx * fx + fy * fy + fz * fz), math.sqrt(tx * tx + ty * ty + tz * tz)


def _intervention(rule: str, field: str, asked: float, allowed: float) -> Intervention:
    return Intervention(
        rule=rule,
        field=field,
        asked=float(asked),
        allowed=float(allowed),
        margin=float(allowed) - float(asked),
    )
