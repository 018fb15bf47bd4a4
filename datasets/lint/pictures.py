"""The rules on pictures: lost, late, silent, frozen, blank; and whether their stamps fit those of the arm's state."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reflexarc.datasets.lint.findings import RULES, Finding, finding
from reflexarc.datasets.lint.measures import EPSILON_S, LAG_STEP_S, MOST_LAG_S, drift, runs, times
from reflexarc.datasets.lint.signals import F64, Camera, EpisodeSignals

_PICTURE_ALIKE = 0.8
"""Correlation from which a picture moves as the arm does (two thirds of the variance)."""
_PICTURE_GAIN = 0.15
"""How much better than unshifted: about twice the standard error of a correlation of 0.8 over 25 pictures."""
_FEWEST_PICTURES = 12
_SLOW_S = 0.25
"""A picture this old when it is recorded: two and a half policy steps; a camera over USB takes 0.03 to 0.1 s."""
_DRIFT = 1e-3
"""Seconds a second. Two quartz clocks differ by 1e-4 at most (100 ppm, the loosest grade of crystal)."""
_DRIFT_LEAST_S = 0.02
_FEWEST_SAME = 3
"""A camera that is slower than it is read gives a picture twice now and then; that is not frozen."""
_SAME = 0.02
"""Grey levels of a coarse picture: below it nothing changed but what a codec or a sensor's noise changes."""


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
        share = np.where(np.diff(camera.seq) == 1, steps / max(usual, EPSILON_S), 0.0)
        if share.max() > limit:
            at = int(share.argmax())
            text = (
                f"camera {camera.name} gave no picture for {1e3 * steps[at]:.0f} ms (usually {1e3 * usual:.0f} ms), "
                f"{times((share > limit).sum())} in all: it or its cable stalls; look what moved unseen"
            )
            yield finding("late_frames", episode, camera.t[at], share[at], text, signal=camera.name)


def camera_silent(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """Spells without a picture at the ends of an episode: a camera that woke late, or died while the arm went on."""
    t = signals.states.t
    for camera in signals.cameras:
        usual = float(np.median(np.diff(camera.t))) if len(camera.t) > 1 else 0.0
        limit = RULES["camera_silent"].limit + 1.5 * usual
        spells = ((t[0], camera.t[0], "before its first picture"), (camera.t[-1], t[-1], "after its last"))
        for begin, end, where in spells:
            if end - begin > limit:
                text = (
                    f"camera {camera.name} is silent for {end - begin:.2f} s {where}: it woke late, died or was pulled "
                    "out; no label stands there, leave the episode out and check its cable"
                )
                yield finding(
                    "camera_silent", episode, begin, end - begin, text, signal=camera.name, limit=limit
                )


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
        slope, apart = drift(captured, age)
        advice = "set its driver to stamp by the host's monotonic clock and record again"
        if age[at] < -limit:
            text = f"{name} is stamped {-1e3 * age[at]:.0f} ms later than it was recorded: {advice}"
            yield finding("clock_skew", episode, captured[at], -age[at], text, signal=signal)
        elif (typical := float(np.median(age))) > _SLOW_S:
            text = f"{name} is stamped {1e3 * typical:.0f} ms before it was recorded: {advice}, or find what is slow"
            yield finding("clock_skew", episode, captured[0], typical, text, signal=signal, limit=_SLOW_S)
        elif abs(slope) > _DRIFT and apart > _DRIFT_LEAST_S:
            text = f"{name}'s clock runs {1e3 * slope:+.1f} ms a second apart from the recorder's: {advice}"
            yield finding(
                "clock_skew", episode, captured[-1], abs(slope), text, signal=signal, limit=_DRIFT, unit="s/s"
            )


def picture_lag(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """How far a camera's motion, seen from picture to picture, is shifted against the arm's way between them.

    Cross-correlation over lags up to 0.4 s; judged only where the picture clearly moves as the arm does, and clearly
    better when shifted. Stamps that are wrong in themselves show up here, whoever made them.
    """
    limit = RULES["picture_lag"].limit
    way = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(signals.states.tcp, axis=0), axis=1))])
    lags = np.arange(-round(MOST_LAG_S / LAG_STEP_S), round(MOST_LAG_S / LAG_STEP_S) + 1) * LAG_STEP_S
    for camera in signals.cameras:
        if _longest_hang(camera, signals)[0] > RULES["frozen_camera"].limit:
            continue  # while it hangs the picture tells nothing of time
        alike = np.array([_seen_as_moved(camera, signals.states.t, way, lag) for lag in lags])
        best = int(alike.argmax())
        gain = alike[best] - alike[len(lags) // 2]
        if abs(lags[best]) >= limit - EPSILON_S and alike[best] >= _PICTURE_ALIKE and gain > _PICTURE_GAIN:
            late = "after" if lags[best] > 0 else "before"
            text = (
                f"camera {camera.name} shows the motion {1e3 * abs(lags[best]):.0f} ms {late} the arm's state does "
                f"(correlation {alike[best]:.2f}): look at it; if so, correct the camera's stamps and record again"
            )
            at = camera.t[int(camera.change.argmax())]
            yield finding("picture_lag", episode, at, lags[best], text, signal=camera.name)


def frozen_camera(signals: EpisodeSignals, episode: str) -> Iterator[Finding]:
    """Pictures that stay the same while the tool goes somewhere."""
    for camera in signals.cameras:
        moved, where, count = _longest_hang(camera, signals)
        if moved > RULES["frozen_camera"].limit:
            text = (
                f"camera {camera.name} shows {count} times the same picture while the tool moves {1e3 * moved:.0f} mm: "
                "its stream hung; leave the episode out and check the camera"
            )
            yield finding("frozen_camera", episode, camera.t[where], moved, text, signal=camera.name)


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


def _longest_hang(camera: Camera, signals: EpisodeSignals) -> tuple[float, int, int]:
    """(m that the tool moves, first index, how many) of the equal, lit pictures during which it moves furthest."""
    states = signals.states
    tcp = np.stack([np.interp(camera.t, states.t, states.tcp[:, axis]) for axis in range(3)], axis=1)
    lit = camera.spread[1:] >= RULES["blank_camera"].limit
    worst = (0.0, 0, 0)
    for first, last in runs((camera.change[1:] < _SAME) & lit):
        count = last - first + 2
        if count >= _FEWEST_SAME:
            moved = float(np.linalg.norm(tcp[first : last + 2] - tcp[first], axis=1).max())
            worst = max(worst, (moved, first, count))
    return worst


def _seen_as_moved(camera: Camera, t: F64, way: F64, lag: float) -> float:
    """Correlation of the pictures' change with the tool's way meanwhile, `lag` s earlier; 0 where there is too little.

    Square roots: what changes in a picture grows slower than the motion that changes it.
    """
    begin, end = camera.t[:-1] - lag, camera.t[1:] - lag
    inside = (begin >= t[0] - EPSILON_S) & (end <= t[-1] + EPSILON_S)
    if inside.sum() < _FEWEST_PICTURES:
        return 0.0
    moved = np.sqrt(np.maximum(np.interp(end, t, way) - np.interp(begin, t, way), 0.0))[inside]
    seen = np.sqrt(camera.change[1:])[inside]
    if moved.std() < 1e-2 or seen.std() < 1e-2:
        return 0.0
    return float(np.corrcoef(seen, moved)[0, 1])
