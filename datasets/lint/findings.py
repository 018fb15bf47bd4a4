"""What the lint can find: one table of rules, each with its limits and why they are what they are; and a finding.

A limit comes from what a thing physically is or from what training does with it, never from the data at hand. An error
makes labels or pictures wrong; a warning is for a person to look at.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Rule:
    """limit: in `unit`. reason: why the limit is what it is."""

    severity: Severity
    limit: float
    unit: str
    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with one episode.

    episode: the log's path below the session. time_s: since the log's first message, where `reflexarc view` shows it.
    value, limit: in `unit`. signal: what to plot: a camera's name, or `joints`, `tcp`, `gripper`,
    `states`, `actions`. text: one
    line: what was found and what to do.
    """

    rule: str
    episode: str
    severity: Severity
    time_s: float
    value: float
    limit: float
    unit: str
    signal: str
    text: str


def look_at(folder: Path, item: Finding) -> str:
    """The command that opens a finding of the session in `folder` in Rerun."""
    return f"reflexarc view {shlex.quote(str(folder / item.episode))} --at {item.time_s:.2f} --spawn"


RULES: dict[str, Rule] = {
    "unreadable": Rule(
        "error", 0.0, "", "the log cannot be read", "what cannot be read cannot be trained on"
    ),
    "cut_short": Rule(
        "warning",
        0.0,
        "",
        "the recording was torn, or repaired",
        "training and export leave such a log out; its end is not what the operator did last",
    ),
    "left_out": Rule(
        "warning",
        0.0,
        "messages",
        "the recorder says that it left messages out",
        "a slow disk, a lost message or one that cannot be: what happened then is not all in the log",
    ),
    "dropped_frames": Rule(
        "error",
        0.0,
        "pictures",
        "sequence numbers of a camera are missing",
        "a camera counts its pictures: one number that is missing is one picture lost",
    ),
    "late_frames": Rule(
        "warning",
        1.5,
        "usual intervals",
        "a camera's interval is too long",
        "at 2 a whole picture is missing; 1.5 is half-way, more than the jitter of any camera that is well",
    ),
    "camera_silent": Rule(
        "error",
        0.25,
        "s",
        "a camera's first picture comes long after the first state, or its last long before the last state",
        "a picture is 0.25 s on its way at most (clock_skew), and one more comes within 1.5 usual intervals",
    ),
    "state_gap": Rule(
        "error",
        0.05,
        "s",
        "no state of the robot for too long",
        "half a policy step of 0.1 s: from there on the label function finds no state fresh enough for a label",
    ),
    "clock_skew": Rule(
        "error",
        0.005,
        "s",
        "stamps of a camera or of the state are by another clock",
        "a picture cannot be received before it was taken; 5 ms, a host tick, is what rounding and threads explain",
    ),
    "picture_lag": Rule(
        "warning",
        0.1,
        "s",
        "the picture moves before or after the arm does",
        "one policy step: beyond it a row's picture belongs to another row's label",
    ),
    "action_lag": Rule(
        "error",
        0.1,
        "s",
        "what was done follows too long after what was asked, or before it",
        "one policy step: beyond it an action stands in another row than its effect",
    ),
    "frozen_camera": Rule(
        "error",
        0.01,
        "m",
        "the same picture again and again while the arm moves",
        "a centimetre at a metre is more than a pixel of 96: the picture must change",
    ),
    "blank_camera": Rule(
        "error",
        4.0,
        "grey levels",
        "black, white or one colour",
        "a covered lens leaves the sensor's noise, 1 to 3 grey levels of 255; a lit scene spreads over tens",
    ),
    "saturated_action": Rule(
        "warning",
        0.2,
        "s",
        "actions stay at the bound of the action space, or joints at their top speed",
        "one step at the bound is a peak; from two on the top was cut off",
    ),
    "jumping_action": Rule(
        "error",
        1.5,
        "of the robot's top speed",
        "what was asked jumps",
        "no arm follows a target that outruns its published speed; a half more is jitter of stamps, or saturation",
    ),
    "gripper_polarity": Rule(
        "error",
        -0.5,
        "correlation",
        "the gripper is not 0 closed, 1 open",
        "a slow gripper that is told to turn quickly may come to 0, one that does the opposite to -1: half-way",
    ),
    "idle_head": Rule(
        "warning",
        1.0,
        "s",
        "nothing moves at the beginning",
        "ten rows of standing still at 10 Hz teach to stand still; a person's reaction takes a quarter of that",
    ),
    "idle_tail": Rule(
        "warning",
        1.0,
        "s",
        "nothing moves at the end",
        "as at the beginning; a success is held for half a second at most until it counts",
    ),
    "too_short": Rule(
        "error",
        0.8,
        "s",
        "too short for one chunk of actions",
        "eight actions of 0.1 s, the chunk that `reflexarc train` learns by default: no row has a whole label",
    ),
    "duplicate": Rule(
        "error",
        1e-4,
        "rad",
        "the same motion as another episode",
        "no servo repeats a motion to 0.1 mrad at every instant: a copy counts twice, or leaks into a test set",
    ),
    "outlier": Rule(
        "warning",
        5.0,
        "robust deviations",
        "unlike the session's other successes of this task",
        "of normally distributed values one in 1.7 million lies further out: none of 11 features of 10,000 episodes",
    ),
}


def finding(
    rule: str,
    episode: str,
    time_s: float,
    value: float,
    text: str,
    *,
    signal: str,
    limit: float | None = None,
    unit: str | None = None,
) -> Finding:
    """A finding of `rule`; `limit` and `unit` where they are others than the table's.

    A state that was captured just before the log's first message is shown where that is.
    """
    row = RULES[rule]
    return Finding(
        rule=rule,
        episode=episode,
        severity=row.severity,
        time_s=max(0.0, float(time_s)),
        value=float(value),
        limit=row.limit if limit is None else limit,
        unit=row.unit if unit is None else unit,
        signal=signal,
        text=text,
    )
