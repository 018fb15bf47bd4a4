"""Small line plots as inline SVG, and what to plot for a finding. Colours are told apart without red and green."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from reflexarc.datasets.lint.findings import Finding
from reflexarc.datasets.lint.signals import F64, Camera, EpisodeSignals

WINDOW_S = 1.5
"""How much is shown before and after a finding."""
_WIDTH, _HEIGHT = 460, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 22, 22
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
"""From the palette of Okabe and Ito, which the colour-blind can tell apart."""
_LABEL = 76
_MOST_POINTS = 400
_WHOLE = frozenset({"idle_head", "idle_tail", "outlier", "duplicate", "too_short"})
"""Rules that are about the whole episode."""


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """t: (N,) s. y: (N,)."""

    name: str
    t: F64
    y: F64


def plot_finding(finding: Finding, signals: EpisodeSignals) -> str:
    """The SVG of the signal that `finding` is about, around its time."""
    title, lines = _lines(finding, signals)
    if finding.rule in _WHOLE:
        begin, end = float(signals.states.t[0]), float(signals.states.t[-1])
    else:
        begin, end = finding.time_s - WINDOW_S, finding.time_s + WINDOW_S
    return svg(title, lines, begin, end, finding.time_s)


def svg(title: str, lines: Sequence[Line], begin: float, end: float, mark: float) -> str:
    """Lines from `begin` to `end` seconds with a mark, the time axis below and the values' range at the left."""
    shown = [_within(line, begin, end) for line in lines]
    values = np.concatenate([line.y for line in shown]) if shown else np.zeros(0)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    across = (_WIDTH - _LEFT - _RIGHT) / max(end - begin, 1e-9)
    down = (_HEIGHT - _TOP - _BOTTOM) / (high - low)
    floor = _HEIGHT - _BOTTOM

    def point(t: float, y: float) -> str:
        return f"{_LEFT + (t - begin) * across:.1f},{floor - (y - low) * down:.1f}"

    x = _LEFT + (mark - begin) * across
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="sans-serif" font-size="11" fill="#555">',
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH - _LEFT - _RIGHT}" height="{floor - _TOP}" '
        'fill="#fafafb" stroke="#ddd"/>',
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{floor}" stroke="#d55e00" stroke-dasharray="4 3"/>',
        f'<text x="{_LEFT}" y="14">{escape(title)}</text>',
        f'<text x="{_LEFT - 4}" y="{_TOP + 9}" text-anchor="end">{high:.3g}</text>',
        f'<text x="{_LEFT - 4}" y="{floor}" text-anchor="end">{low:.3g}</text>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}">{begin:.2f} s</text>',
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 6}" text-anchor="end">{end:.2f} s</text>',
    ]
    for number, line in enumerate(shown):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(point(t, y) for t, y in zip(line.t.tolist(), line.y.tolist(), strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if len(line.t) <= 60:
            parts += [
                f'<circle cx="{at.split(",")[0]}" cy="{at.split(",")[1]}" r="2" fill="{colour}"/>'
                for at in points.split()
            ]
        x = _WIDTH - _RIGHT - _LABEL * (len(shown) - 1 - number)
        parts.append(f'<text x="{x}" y="14" text-anchor="end" fill="{colour}">{escape(line.name)}</text>')
    return "\n".join([*parts, "</svg>"])


def _lines(finding: Finding, signals: EpisodeSignals) -> tuple[str, list[Line]]:
    """(title, lines) for a finding, by its rule and its signal."""
    states = signals.states
    camera = next((camera for camera in signals.cameras if camera.name == finding.signal), None)
    if camera is not None:
        return _camera_lines(finding.rule, camera, signals)
    if finding.rule == "state_gap":
        return "from state to state, ms", [Line("interval", states.t[1:], 1e3 * np.diff(states.t))]
    if finding.rule == "clock_skew":
        return "age when recorded, ms", [Line("state", states.t, 1e3 * (states.recorded - states.t))]
    if finding.signal == "gripper":
        lines = [Line("measured", states.t, states.gripper)]
        asked = signals.setpoints
        if len(asked.t):
            lines.append(Line("asked", asked.t, asked.gripper))
        return "gripper, 0 closed, 1 open", lines
    if finding.signal == "actions":
        return _action_lines(finding, signals)
    if finding.signal == "joints":
        joint = _joint(finding, signals)
        lines = [
            Line("measured", states.t, states.joints[:, joint]),
            Line("commanded", states.t, states.joints_commanded[:, joint]),
        ]
        if len(signals.setpoints.t):
            lines.append(Line("asked", signals.setpoints.t, signals.setpoints.joints[:, joint]))
        return f"joint {joint + 1}, rad", lines
    place, tcp = ("measured", states.tcp) if finding.rule in _WHOLE else ("commanded", states.tcp_commanded)
    return f"tool, {place}, m from its start", [
        Line(name, states.t, tcp[:, axis] - tcp[0, axis]) for axis, name in enumerate("xyz")
    ]


def _joint(finding: Finding, signals: EpisodeSignals) -> int:
    """The joint to show: the one that is asked to go fastest at the finding, or that goes furthest in the episode."""
    setpoints = signals.setpoints
    if finding.rule in _WHOLE or finding.rule == "action_lag" or len(setpoints.t) < 2:
        return int(np.ptp(signals.states.joints, axis=0).argmax())
    at = int(np.abs(setpoints.t[1:] - finding.time_s).argmin())
    return int(np.abs(setpoints.joints[at + 1] - setpoints.joints[at]).argmax())


def _action_lines(finding: Finding, signals: EpisodeSignals) -> tuple[str, list[Line]]:
    """The first action of every chunk; of one that jumps, all its actions."""
    chunks = signals.chunks
    if finding.rule == "jumping_action":
        at = int(np.abs(chunks.t - finding.time_s).argmin())
        actions = chunks.actions[at]
        t, title = chunks.t[at] + chunks.step_s[at] * np.arange(len(actions)), "actions of this chunk, m"
    else:
        actions = np.stack([actions[0] for actions in chunks.actions])
        t, title = chunks.t, "first action of every chunk, m"
    return title, [Line(name, t, actions[:, axis]) for axis, name in enumerate(("dx", "dy", "dz"))]


def _camera_lines(rule: str, camera: Camera, signals: EpisodeSignals) -> tuple[str, list[Line]]:
    if rule in ("dropped_frames", "late_frames", "camera_silent"):
        return "from picture to picture, ms", [Line("interval", camera.t[1:], 1e3 * np.diff(camera.t))]
    if rule == "clock_skew":
        return "age when recorded, ms", [Line(camera.name, camera.t, 1e3 * (camera.recorded - camera.t))]
    if rule == "blank_camera":
        return "grey levels", [
            Line("mean", camera.t, camera.mean),
            Line("spread", camera.t, camera.spread),
        ]
    states = signals.states
    way = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(states.tcp, axis=0), axis=1))])
    moved = np.diff(np.interp(camera.t, states.t, way))
    return "from picture to picture, share of the most", [
        Line("change", camera.t[1:], camera.change[1:] / max(camera.change.max(), 1e-9)),
        Line("tool's way", camera.t[1:], moved / max(moved.max(initial=0.0), 1e-9)),
    ]


def _within(line: Line, begin: float, end: float) -> Line:
    """The part of a line that is shown, thinned where there are more points than pixels."""
    rows = np.flatnonzero((line.t >= begin) & (line.t <= end))
    rows = rows[:: max(1, len(rows) // _MOST_POINTS)]
    return Line(line.name, line.t[rows], line.y[rows])
