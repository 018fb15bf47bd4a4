"""The rules on states, actions and the gripper: gaps, lags, jumps, bounds, polarity; and where little happens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.action import tcp_delta_spec
from reflexarc.datasets.lint.findings import RULES, Finding, finding
from reflexarc.datasets.lint.measures import EPSILON_S, in_spells, motion_lag, runs, speed, times
from reflexarc.datasets.lint.signals import F64, EpisodeSignals

_EARLY_S = 0.02
"""An arm cannot do what it was not asked yet; two ticks of a 100 Hz controller are what stamping explains, or as much
as the stamps are apart where that is more: nothing finer can be told of a log at 10 Hz."""
_ALIKE = 0.7
"""Correlation from which two motions are the same one, shifted (half of the variance)."""
_TOP_TCP_SPEED = 3.0
"""m/s, of a robot that the log says nothing of: the fastest that is published of the arms here (Franka Research 3)."""
_TOP_JOINT_SPEED = 2 * np.pi
"""rad/s; likewise, rounded up."""
_STILL_M, _STILL_RAD, _STILL_OPENING = 0.002, 0.01, 0.02
"""What does not count as motion: an arm's and a gripper's repeatability with a servo holding it."""
_AT_END = 0.05
"""Of the opening: fully open or closed."""
_STALL_OPENING, _STALL_S = 0.2, 0.5
"""A gripper that is asked to open meets nothing: it gets there. One that closes is stopped by what it grasps."""


def state_gap(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """Spells without a state."""
    states = signals.states
    steps = np.diff(states.t)
    limit = max(RULES["state_gap"].limit, 1.5 * float(np.median(steps)))
    if steps.max() > limit + EPSILON_S:
        at = int(steps.argmax())
        text = (
            f"no state for {1e3 * steps[at]:.0f} ms, {times((steps > limit).sum())} in all: the host stalled or "
            "the recorder dropped states; rows there get no label, leave the episode out if the motion matters"
        )
        yield finding("state_gap", episode, states.t[at], steps[at], text, signal="states", limit=limit)


def action_lag(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """How long the measured joints follow what the controller asked for, and what the host commanded."""
    states, setpoints = signals.states, signals.setpoints
    asked = [("commanded", states.t, states.joints_commanded)]
    if len(setpoints.t) >= 2:
        asked.insert(0, ("asked", setpoints.t, setpoints.joints))
    for name, t, joints in asked:
        lag, alike = motion_lag(t, joints, states.t, states.joints, signals.disturbed)
        period = max(float(np.median(np.diff(t))), float(np.median(np.diff(states.t))))
        earliest, latest = -max(_EARLY_S, period), max(RULES["action_lag"].limit, period)
        if alike >= _ALIKE and not earliest - EPSILON_S <= lag <= latest + EPSILON_S:
            late, bound = ("after", latest) if lag > 0 else ("before", earliest)
            text = (
                f"joints move {1e3 * abs(lag):.0f} ms {late} they were {name} to (correlation {alike:.2f}): "
                "actions and states are stamped by different clocks, or shifted by an import; align and record again"
            )
            at = states.t[int(np.abs(np.diff(states.joints, axis=0)).max(axis=1).argmax())]
            yield finding("action_lag", episode, at, lag, text, signal="joints", limit=bound)
            return


def saturated_action(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """Actions of a policy at the bounds of the action space, or asked joints at their top speed, for two steps on."""
    limit = RULES["saturated_action"].limit
    longest, at = _longest_at_bound(signals)
    advice = "what was wanted beyond it is lost; ask for less, or use an action space with wider bounds"
    if longest >= limit - EPSILON_S:
        text = f"actions stay at the action space's bound for {longest:.1f} s: {advice}"
        yield finding("saturated_action", episode, at, longest, text, signal="actions")
    t, share = _joint_speed(signals)
    fast = (share > 0.99) & (share <= RULES["jumping_action"].limit) & ~in_spells(t, signals.disturbed)
    longest, at = max(((t[last] - t[first], t[first]) for first, last in runs(fast)), default=(0.0, 0.0))
    if longest >= limit - EPSILON_S:
        text = f"a joint is asked to go at its top speed for {longest:.1f} s: {advice}, or go slower"
        yield finding("saturated_action", episode, at, longest, text, signal="joints")


def jumping_action(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """A target that outruns the arm: joints asked for, the commanded tool, or neighbouring actions of one chunk."""
    limit = RULES["jumping_action"].limit
    t, share = _joint_speed(signals)
    share = np.where(in_spells(t, signals.disturbed), 0.0, share)
    states = signals.states
    top = float(signals.robot.get("cartesian", {}).get("speed", _TOP_TCP_SPEED))
    tool = np.linalg.norm(speed(states.t, states.tcp_commanded), axis=1) / top
    tool = np.where(in_spells(states.t[1:], signals.disturbed), 0.0, tool)
    cases = [("joints asked for", "joints", t, share), ("the commanded tool", "tcp", states.t[1:], tool)]
    for name, signal, at_s, shares in cases:
        if shares.max(initial=0.0) > limit:
            at = int(shares.argmax())
            text = (
                f"{name} jump at {shares[at]:.1f} times the robot's top speed, {times((shares > limit).sum())} in "
                "all: a device lost its place, or two recordings were joined; cut the episode there or leave it out"
            )
            yield finding("jumping_action", episode, at_s[at], shares[at], text, signal=signal)
            return
    yield from _jump_in_chunk(signals, episode)


def gripper_polarity(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """Openings outside 0..1, a gripper that does the opposite of what it is told, or one that is stopped opening."""
    states = signals.states
    advice = "convert it at the driver or the import (0 closed, 1 open), and record or import again"
    asked = signals.setpoints.gripper if len(signals.setpoints.t) else states.gripper_commanded
    asked_t = signals.setpoints.t if len(signals.setpoints.t) else states.t
    for name, t, values in (("measured", states.t, states.gripper), ("asked for", asked_t, asked)):
        outside = np.maximum(values - 1.0, -values)
        if outside.size and outside.max() > _STILL_OPENING:
            at = int(outside.argmax())
            text = f"the opening {name} is {values[at]:.2f}, not within 0 (closed) to 1 (open): {advice}"
            yield finding(
                "gripper_polarity",
                episode,
                t[at],
                values[at],
                text,
                signal="gripper",
                limit=float(values[at] > 0),
                unit="of 1",
            )
            return
    told = asked[np.clip(np.searchsorted(asked_t, states.t, side="right") - 1, 0, None)]
    if min(np.ptp(told), np.ptp(states.gripper)) > 0.1:
        alike = float(np.corrcoef(told, states.gripper)[0, 1])
        if alike < RULES["gripper_polarity"].limit:
            at = int(np.abs(told - states.gripper).argmax())
            text = f"the gripper does the opposite of what it is told (correlation {alike:.2f}): {advice}"
            yield finding("gripper_polarity", episode, states.t[at], alike, text, signal="gripper")
            return
    commanded, settled = states.gripper_commanded, ~_moving(states.gripper)
    opposite = (commanded < _AT_END) & (states.gripper > 1.0 - _AT_END) & settled
    stalled = (commanded > 1.0 - _AT_END) & (commanded - states.gripper > _STALL_OPENING) & settled
    for true, text in (
        (opposite, "the gripper stays open when it is told to close"),
        (stalled, "the gripper is stopped when it is told to open, as if it grasped by opening"),
    ):
        spans = ((states.t[last] - states.t[first], first) for first, last in runs(true))
        lasted, at = max(spans, default=(0.0, 0))
        if lasted > _STALL_S:
            value = commanded[at] - states.gripper[at]
            text = f"{text} ({states.gripper[at]:.2f} for {lasted:.1f} s): {advice}"
            yield finding(
                "gripper_polarity",
                episode,
                states.t[at],
                value,
                text,
                limit=_STALL_OPENING,
                signal="gripper",
                unit="of 1",
            )
            return


def idle_ends(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """Time before the first and after the last motion of tool, joints or gripper."""
    states = signals.states
    for rule, reference, end in (("idle_head", 0, "first"), ("idle_tail", -1, "last")):
        moved = np.linalg.norm(states.tcp - states.tcp[reference], axis=1) > _STILL_M
        moved |= np.abs(states.joints - states.joints[reference]).max(axis=1) > _STILL_RAD
        moved |= np.abs(states.gripper - states.gripper[reference]) > _STILL_OPENING
        places = np.flatnonzero(moved)
        begin, stop = states.t[0], states.t[-1]
        if places.size and reference == 0:
            stop = states.t[places[0]]
        elif places.size:
            begin = states.t[places[-1]]
        if stop - begin > RULES[rule].limit:
            text = f"nothing moves for the {end} {stop - begin:.1f} s: cut them off, or start and stop sooner"
            yield finding(rule, episode, begin, stop - begin, text, signal="tcp")


def too_short(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """Shorter than one chunk."""
    if signals.duration < RULES["too_short"].limit - EPSILON_S:
        text = f"the episode lasts {signals.duration:.2f} s, less than one chunk of actions: delete it"
        yield finding("too_short", episode, signals.states.t[0], signals.duration, text, signal="tcp")


def _joint_speed(signals: EpisodeSignals) -> tuple[F64, F64]:
    """(t, the fastest joint's share of its top speed) of what was asked for: setpoints, or else commanded joints."""
    setpoints, states = signals.setpoints, signals.states
    t, joints = (
        (setpoints.t, setpoints.joints) if len(setpoints.t) > 1 else (states.t, states.joints_commanded)
    )
    top = np.array([joint.get("velocity", _TOP_JOINT_SPEED) for joint in signals.robot.get("joints", [])])
    if top.shape != joints.shape[1:]:
        top = np.full(joints.shape[1], _TOP_JOINT_SPEED)
    return t[1:], np.max(speed(t, joints) / top, axis=1)


def _longest_at_bound(signals: EpisodeSignals) -> tuple[float, float]:
    """(longest time, its begin) that a policy's motions stay at the bound: within a chunk, or in chunk after chunk."""
    longest, at = 0.0, 0.0
    begin: float | None = None
    for t, actions, step_s in zip(
        signals.chunks.t, signals.chunks.actions, signals.chunks.step_s, strict=True
    ):
        bounds = _bounds(actions, step_s)
        if bounds is None or in_spells(np.array([t]), signals.disturbed)[0]:
            begin = None
            continue
        full = np.any(np.abs(actions[:, :6]) >= 0.999 * bounds, axis=1)
        begin = (t if begin is None else begin) if full[0] else None
        inside = max((last - first + 1 for first, last in runs(full)), default=0) * step_s
        for lasted, since in ((inside, t), (0.0, 0.0) if begin is None else (t - begin + step_s, begin)):
            if lasted > longest + EPSILON_S:
                longest, at = lasted, since
    return longest, at


def _jump_in_chunk(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """Neighbouring actions of a chunk that differ by half of the action space's range."""
    for t, actions, step_s in zip(
        signals.chunks.t, signals.chunks.actions, signals.chunks.step_s, strict=True
    ):
        bounds = _bounds(actions, step_s)
        if bounds is None or len(actions) < 2:
            continue
        jumps = (np.abs(np.diff(actions[:, :6], axis=0)) / bounds).max(axis=1)
        if jumps.max() >= 1.0 and not in_spells(np.array([t]), signals.disturbed)[0]:
            text = (
                f"neighbouring actions of one chunk differ by {jumps.max():.1f} times the action space's bound: "
                "look at the policy or the device that gave it, and leave the episode out"
            )
            yield finding("jumping_action", episode, t, jumps.max(), text, signal="actions")
            return


def _bounds(actions: F64, step_s: float) -> F64 | None:
    """(6,) bounds of the canonical action space, if the actions can be of it."""
    if actions.shape[1] != 7 or not 0.0 < step_s <= 2.0:
        return None
    return np.array([dim.upper for dim in tcp_delta_spec(1, float(step_s)).dims[:6]], dtype=np.float64)


def _moving(opening: F64) -> NDArray[np.bool_]:
    """Where an opening changes."""
    return np.asarray(np.abs(np.diff(opening, prepend=opening[0])) > 1e-3)
