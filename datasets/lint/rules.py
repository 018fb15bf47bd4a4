"""The rules on one episode: pure functions from its signals to findings.

Each takes an `EpisodeSignals` and the episode's name. Limits and their reasons stand in `findings.RULES`; the constants
here say when a thing can be judged at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.action import tcp_delta_spec
from reflexarc.datasets.lint.findings import RULES, Finding, finding
from reflexarc.datasets.lint.signals import F64, Camera, EpisodeSignals

_EPSILON_S = 1e-6
_MOST_LAG_S = 0.4
"""How far lags are searched: four policy steps."""
_LAG_STEP_S = 0.01
_EARLY_S = -0.02
"""An arm cannot do what it was not asked yet; two ticks of a 100 Hz controller are what stamping explains."""
_ALIKE = 0.7
"""Correlation from which two motions are the same one, shifted (half of the variance)."""
_PICTURE_ALIKE = 0.8
_PICTURE_GAIN = 0.15
"""How much better than unshifted: about twice the standard error of a correlation of 0.8 over 25 pictures."""
_FEWEST_PICTURES = 12
_SLOW_S = 0.25
"""A picture this old when it is recorded: two and a half policy steps; a camera over USB takes 0.03 to 0.1 s."""
_DRIFT = 1e-3
"""Seconds a second. Two quartz clocks differ by 1e-4 at most (100 ppm, the loosest grade of crystal)."""
_DRIFT_LEAST_S = 0.02
_SAME = 0.02
"""Grey levels of a coarse picture: below it nothing changed but what a codec or a sensor's noise changes."""
_TOP_TCP_SPEED = 3.0
"""m/s, of a robot that the log says nothing of: the fastest that is published of the arms here (Franka Research 3)."""
_TOP_JOINT_SPEED = 2 * np.pi
"""rad/s; likewise, rounded up."""
_STILL_M, _STILL_RAD, _STILL_OPENING = 0.002, 0.01, 0.02
"""What does not count as motion: an arm's and a gripper's repeatability with a servo holding it."""
_STALL_OPENING, _STALL_S = 0.2, 0.5
"""A gripper that is asked to open meets nothing: it gets there. One that closes is stopped by what it grasps."""


def check_episode(signals: EpisodeSignals, episode: str) -> list[Finding]:
    """All findings of the rules on one episode, by time."""
    found = [item for rule in EPISODE_RULES for item in rule(signals, episode)]
    return sorted(found, key=lambda item: (item.time_s, item.rule))


def dropped_frames(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """Numbers that are missing from a camera's sequence; one finding a camera, at the largest gap."""
    for camera in signals.cameras:
        gaps = np.diff(camera.seq) - 1
        if gaps.size and gaps.max() > 0:
            at = int(gaps.argmax())
            lost = int(gaps[gaps > 0].sum())
            text = (
                f"camera {camera.name} lost {lost} of {len(camera.t) + lost} pictures, most after number "
                f"{camera.seq[at]}: the disk or the network was too slow; leave the episode out or record it again"
            )
            yield finding("dropped_frames", episode, camera.t[at], lost, text, signal=camera.name)


def late_frames(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """Intervals that are too long though no number is missing; where one is, `dropped_frames` tells."""
    limit = RULES["late_frames"].limit
    for camera in signals.cameras:
        if len(camera.t) < 3:
            continue
        steps = np.diff(camera.t)
        usual = float(np.median(steps))
        share = np.where(np.diff(camera.seq) == 1, steps / max(usual, _EPSILON_S), 0.0)
        if share.max() > limit:
            at = int(share.argmax())
            text = (
                f"camera {camera.name} gave no picture for {1e3 * steps[at]:.0f} ms (usually {1e3 * usual:.0f} ms), "
                f"{int((share > limit).sum())} times in all: it or its cable stalls; look what moved unseen"
            )
            yield finding("late_frames", episode, camera.t[at], share[at], text, signal=camera.name)


def state_gap(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """Spells without a state."""
    states = signals.states
    steps = np.diff(states.t)
    limit = max(RULES["state_gap"].limit, 1.5 * float(np.median(steps)))
    if steps.max() > limit + _EPSILON_S:
        at = int(steps.argmax())
        text = (
            f"no state for {1e3 * steps[at]:.0f} ms, {int((steps > limit).sum())} times in all: the host stalled or "
            "the recorder dropped states; rows there get no label, leave the episode out if the motion matters"
        )
        yield finding("state_gap", episode, states.t[at], steps[at], text, signal="states", limit=limit)


def clock_skew(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """Capture stamps against the recorder's clock: later than it, long before it, or running apart from it."""
    limit = RULES["clock_skew"].limit
    sources = [
        (f"camera {camera.name}", camera.name, camera.t, camera.recorded) for camera in signals.cameras
    ]
    sources.append(("the state", "states", signals.states.t, signals.states.recorded))
    for name, signal, captured, recorded in sources:
        age = recorded - captured
        at = int(age.argmin())
        drift, apart = _drift(captured, age)
        advice = "set its driver to stamp by the host's monotonic clock and record again"
        if age[at] < -limit:
            text = f"{name} is stamped {-1e3 * age[at]:.0f} ms later than it was recorded: {advice}"
            yield finding("clock_skew", episode, captured[at], -age[at], text, signal=signal)
        elif (typical := float(np.median(age))) > _SLOW_S:
            text = f"{name} is stamped {1e3 * typical:.0f} ms before it was recorded: {advice}, or find what is slow"
            yield finding("clock_skew", episode, captured[0], typical, text, signal=signal, limit=_SLOW_S)
        elif abs(drift) > _DRIFT and apart > _DRIFT_LEAST_S:
            text = f"{name}'s clock runs {1e3 * drift:+.1f} ms a second apart from the recorder's: {advice}"
            yield finding(
                "clock_skew", episode, captured[-1], abs(drift), text, signal=signal, limit=_DRIFT, unit="s/s"
            )


def picture_lag(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """How far a camera's motion, seen from picture to picture, is shifted against the arm's way between them.

    Cross-correlation over lags up to 0.4 s; judged only where the picture clearly moves as the arm does, and clearly
    better when shifted. Stamps that are wrong in themselves show up here, whoever made them.
    """
    limit = RULES["picture_lag"].limit
    way = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(signals.states.tcp, axis=0), axis=1))])
    lags = np.arange(-round(_MOST_LAG_S / _LAG_STEP_S), round(_MOST_LAG_S / _LAG_STEP_S) + 1) * _LAG_STEP_S
    for camera in signals.cameras:
        alike = np.array([_seen_as_moved(camera, signals.states.t, way, lag) for lag in lags])
        best = int(alike.argmax())
        gain = alike[best] - alike[len(lags) // 2]
        if abs(lags[best]) >= limit - _EPSILON_S and alike[best] >= _PICTURE_ALIKE and gain > _PICTURE_GAIN:
            late = "after" if lags[best] > 0 else "before"
            text = (
                f"camera {camera.name} shows the motion {1e3 * abs(lags[best]):.0f} ms {late} the arm's state does "
                f"(correlation {alike[best]:.2f}): look at it; if so, correct the camera's stamps and record again"
            )
            at = camera.t[int(camera.change.argmax())]
            yield finding("picture_lag", episode, at, lags[best], text, signal=camera.name)


def action_lag(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """How long the measured joints follow what the controller asked for, and what the host commanded."""
    states, setpoints = signals.states, signals.setpoints
    asked = [("commanded", states.t, states.joints_commanded)]
    if len(setpoints.t) >= 2:
        asked.insert(0, ("asked", setpoints.t, setpoints.joints))
    limit = RULES["action_lag"].limit
    for name, t, joints in asked:
        lag, alike = _motion_lag(t, joints, states.t, states.joints)
        if alike >= _ALIKE and not _EARLY_S <= lag <= limit:
            late, bound = ("after", limit) if lag > 0 else ("before", _EARLY_S)
            text = (
                f"joints move {1e3 * abs(lag):.0f} ms {late} they were {name} to (correlation {alike:.2f}): "
                "actions and states are stamped by different clocks, or shifted by an import; align and record again"
            )
            at = states.t[int(np.abs(np.gradient(states.joints, axis=0)).max(axis=1).argmax())]
            yield finding("action_lag", episode, at, lag, text, signal="joints", limit=bound)
            return


def frozen_camera(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """Pictures that stay the same while the tool goes somewhere."""
    limit = RULES["frozen_camera"].limit
    states = signals.states
    for camera in signals.cameras:
        tcp = np.stack([np.interp(camera.t, states.t, states.tcp[:, axis]) for axis in range(3)], axis=1)
        worst, where, count = 0.0, 0, 0
        for first, last in _runs(camera.change[1:] < _SAME):
            moved = float(np.linalg.norm(tcp[first : last + 2] - tcp[first], axis=1).max())
            if moved > worst:
                worst, where, count = moved, first, last - first + 2
        if worst > limit:
            text = (
                f"camera {camera.name} shows {count} times the same picture while the tool moves {1e3 * worst:.0f} mm: "
                "its stream hung; leave the episode out and check the camera"
            )
            yield finding("frozen_camera", episode, camera.t[where], worst, text, signal=camera.name)


def blank_camera(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """Pictures without contrast."""
    limit = RULES["blank_camera"].limit
    for camera in signals.cameras:
        blank = np.flatnonzero(camera.spread < limit)
        if blank.size:
            at = int(blank[0])
            tone = "black" if camera.mean[at] < 64 else "white" if camera.mean[at] > 192 else "of one colour"
            text = (
                f"{blank.size} of {len(camera.t)} pictures of camera {camera.name} are {tone}: "
                "uncover it, look at exposure and cable; leave the episode out"
            )
            yield finding("blank_camera", episode, camera.t[at], camera.spread[at], text, signal=camera.name)


def saturated_action(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """Actions of a policy at the bounds of the action space, or asked joints at their top speed, for two steps on."""
    limit = RULES["saturated_action"].limit
    longest, at = _longest_at_bound(signals)
    advice = "what was wanted beyond it is lost; ask for less, or use an action space with wider bounds"
    if longest >= limit - _EPSILON_S:
        text = f"actions stay at the action space's bound for {longest:.1f} s: {advice}"
        yield finding("saturated_action", episode, at, longest, text, signal="tcp")
    t, share = _joint_speed(signals)
    fast = (share > 0.99) & (share <= 1.5) & ~_in_spells(t, signals.disturbed)
    runs = [(t[last] - t[first], t[first]) for first, last in _runs(fast)]
    if runs and max(runs)[0] >= limit - _EPSILON_S:
        longest, at = max(runs)
        text = f"a joint is asked to go at its top speed for {longest:.1f} s: {advice}, or go slower"
        yield finding("saturated_action", episode, at, longest, text, signal="joints")


def jumping_action(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """A target that outruns the arm: joints asked for, the commanded tool, or neighbouring actions of one chunk."""
    limit = RULES["jumping_action"].limit
    t, share = _joint_speed(signals)
    share = np.where(_in_spells(t, signals.disturbed), 0.0, share)
    states = signals.states
    top = float(signals.robot.get("cartesian", {}).get("speed", _TOP_TCP_SPEED))
    tool = _speed(states.t, states.tcp_commanded)[:, None] if len(states.t) > 1 else np.zeros((0, 1))
    tool = np.linalg.norm(tool.reshape(len(states.t) - 1, -1), axis=1) / top
    tool = np.where(_in_spells(states.t[1:], signals.disturbed), 0.0, tool)
    cases = [("joints asked for", "joints", t, share), ("the commanded tool", "tcp", states.t[1:], tool)]
    for name, signal, times, speed in cases:
        if speed.size and speed.max() > limit:
            at = int(speed.argmax())
            text = (
                f"{name} jump at {speed[at]:.1f} times the robot's top speed, {int((speed > limit).sum())} times in "
                "all: a device lost its place, or two recordings were joined; cut the episode there or leave it out"
            )
            yield finding("jumping_action", episode, times[at], speed[at], text, signal=signal)
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
    stalled = (told > 0.95) & (told - states.gripper > _STALL_OPENING) & ~_moving(states.gripper)
    runs = [(states.t[last] - states.t[first], first) for first, last in _runs(stalled)]
    if runs and max(runs)[0] > _STALL_S:
        at = max(runs)[1]
        text = (
            f"the gripper stops at {states.gripper[at]:.2f} when told to open, as if it grasped something by opening: "
            f"asked and measured are both flipped; {advice}"
        )
        value = told[at] - states.gripper[at]
        yield finding(
            "gripper_polarity",
            episode,
            states.t[at],
            value,
            text,
            signal="gripper",
            limit=_STALL_OPENING,
            unit="of 1",
        )


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
    if signals.duration < RULES["too_short"].limit - _EPSILON_S:
        text = f"the episode lasts {signals.duration:.2f} s, less than one chunk of actions: delete it"
        yield finding("too_short", episode, signals.states.t[0], signals.duration, text, signal="tcp")


EPISODE_RULES: tuple[Callable[[EpisodeSignals, str], Iterator[Finding]], ...] = (
    dropped_frames,
    late_frames,
    state_gap,
    clock_skew,
    picture_lag,
    action_lag,
    frozen_camera,
    blank_camera,
    saturated_action,
    jumping_action,
    gripper_polarity,
    idle_ends,
    too_short,
)


def _drift(t: F64, age: F64) -> tuple[float, float]:
    """(slope of the age, s/s; how far that leads over the episode, s): Theil's median slope over halves."""
    half = len(t) // 2
    if half < 2:
        return 0.0, 0.0
    spans = t[half : 2 * half] - t[:half]
    slope = float(np.median((age[half : 2 * half] - age[:half]) / np.maximum(spans, _EPSILON_S)))
    return slope, abs(slope) * float(t[-1] - t[0])


def _seen_as_moved(camera: Camera, t: F64, way: F64, lag: float) -> float:
    """Correlation of the pictures' change with the tool's way meanwhile, `lag` s earlier; 0 where there is too little.

    Square roots: what changes in a picture grows slower than the motion that changes it.
    """
    begin, end = camera.t[:-1] - lag, camera.t[1:] - lag
    inside = (begin >= t[0] - _EPSILON_S) & (end <= t[-1] + _EPSILON_S)
    if inside.sum() < _FEWEST_PICTURES:
        return 0.0
    moved = np.sqrt(np.maximum(np.interp(end, t, way) - np.interp(begin, t, way), 0.0))[inside]
    seen = np.sqrt(camera.change[1:])[inside]
    if moved.std() < 1e-2 or seen.std() < 1e-2:
        return 0.0
    return float(np.corrcoef(seen, moved)[0, 1])


def _motion_lag(t: F64, joints: F64, later_t: F64, later: F64) -> tuple[float, float]:
    """(lag in s at which `later` follows `joints` best, its correlation), of their velocities on a common grid."""
    begin, end = max(t[0], later_t[0]), min(t[-1], later_t[-1])
    grid = np.arange(begin, end, _LAG_STEP_S)
    most = round(_MOST_LAG_S / _LAG_STEP_S)
    if len(grid) < 2 * most:
        return 0.0, 0.0
    one, two = (
        np.diff(
            np.stack([np.interp(grid, times, values[:, axis]) for axis in range(values.shape[1])], 1), axis=0
        )
        for times, values in ((t, joints), (later_t, later))
    )
    alike = np.array([_shifted(one, two, lag) for lag in range(-most, most + 1)])
    best = int(alike.argmax())
    return (best - most) * _LAG_STEP_S, float(alike[best])


def _shifted(one: F64, two: F64, lag: int) -> float:
    """Correlation (about zero) of `one` with `two` taken `lag` rows later; (rows, joints)."""
    a = one[max(0, -lag) : len(one) - max(0, lag)]
    b = two[max(0, lag) : len(two) - max(0, -lag)]
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / size) if size > 1e-9 else 0.0


def _speed(t: F64, values: F64) -> F64:
    """(N-1, …) change a second; a stamp that jitters by a tick does not make it more than it is."""
    steps = np.diff(t)
    usual = float(np.median(steps)) if steps.size else 1.0
    return np.abs(np.diff(values, axis=0)) / np.maximum(steps, usual)[:, None]


def _joint_speed(signals: EpisodeSignals) -> tuple[F64, F64]:
    """(t, the fastest joint's share of its top speed) of what was asked for: setpoints, or else commanded joints."""
    setpoints, states = signals.setpoints, signals.states
    t, joints = (
        (setpoints.t, setpoints.joints) if len(setpoints.t) > 1 else (states.t, states.joints_commanded)
    )
    top = np.array([joint.get("velocity", _TOP_JOINT_SPEED) for joint in signals.robot.get("joints", [])])
    if top.shape != joints.shape[1:]:
        top = np.full(joints.shape[1], _TOP_JOINT_SPEED)
    return t[1:], (_speed(t, joints) / top).max(axis=1)


def _longest_at_bound(signals: EpisodeSignals) -> tuple[float, float]:
    """(longest time, when) that a policy's motions stay at the bound: within a chunk, or in chunk after chunk."""
    longest, at = 0.0, 0.0
    begin: float | None = None
    for t, actions, step_s in zip(
        signals.chunks.t, signals.chunks.actions, signals.chunks.step_s, strict=True
    ):
        bounds = _bounds(actions, step_s)
        if bounds is None or _in_spells(np.array([t]), signals.disturbed)[0]:
            begin = None
            continue
        full = (np.abs(actions[:, :6]) >= 0.999 * bounds).any(axis=1)
        begin = (t if begin is None else begin) if full[0] else None
        inside = max((last - first + 1 for first, last in _runs(full)), default=0) * step_s
        lasted = max(inside, 0.0 if begin is None else t - begin + step_s)
        if lasted > longest:
            longest, at = lasted, t
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
        if jumps.max() >= 1.0 and not _in_spells(np.array([t]), signals.disturbed)[0]:
            text = (
                f"neighbouring actions of one chunk differ by {jumps.max():.1f} times the action space's bound: "
                "look at the policy or the device that gave it, and leave the episode out"
            )
            yield finding("jumping_action", episode, t, jumps.max(), text, signal="tcp")
            return


def _bounds(actions: F64, step_s: float) -> F64 | None:
    """(6,) bounds of the canonical action space, if the actions can be of it."""
    if actions.shape[1] != 7 or not 0.0 < step_s <= 2.0:
        return None
    return np.array([dim.upper for dim in tcp_delta_spec(1, float(step_s)).dims[:6]])


def _moving(opening: F64) -> NDArray[np.bool_]:
    """Where an opening changes."""
    return np.abs(np.gradient(opening)) > 1e-3


def _in_spells(t: F64, spells: tuple[tuple[float, float], ...]) -> NDArray[np.bool_]:
    """Which times lie in one of the spells, or in the half second in which the arm comes back from it."""
    inside = np.zeros(len(t), dtype=bool)
    for begin, end in spells:
        inside |= (t >= begin) & (t < end + 0.5)
    return inside


def _runs(true: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, last) index of every unbroken run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], true, [False]]).astype(np.int8)))
    return [(int(first), int(last) - 1) for first, last in edges.reshape(-1, 2)]
