"""What safety did in an episode, from its log: every stop, every rule with what was asked and allowed, how often."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import Any

from reflexarc.configs.errors import LogError
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.wire.messages import Event, SafetyReport, SafetyState, State

STOPS = ("protective_stop", "e_stop")
WATCHED = (
    "monitor_trip", "monitor_release", "monitor_blind", "driver_fault", "halt", "request", "arm_stopped",
    "arm_braked",
)  # fmt: skip
"""Events that belong to the story of a stop."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One thing that safety limited, at one tick. time_s: from the episode's first state; units: of the rule."""

    time_s: float
    rule: str
    field: str
    asked: float
    allowed: float
    margin: float
    state: SafetyState


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """A change of the safety state, or another event that belongs to it (`state` is empty then)."""

    time_s: float
    state: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Audit:
    """One episode. limits: hash of the safety configuration. began: first state. ticks: of the host; limited: those at
    which anything was. scale: mean share of the motion asked for that was allowed, over the ticks that were limited."""

    episode: str
    limits: str
    began: str
    seconds: float
    ticks: int
    limited: int
    scale: float
    entries: tuple[Entry, ...]
    changes: tuple[Change, ...]
    in_state: dict[str, float]

    def rules(self) -> list[dict[str, Any]]:
        """By rule, the most frequent first: ticks, share of all ticks, where most, and the worst that was asked."""
        by_rule: dict[str, list[Entry]] = collections.defaultdict(list)
        for entry in self.entries:
            by_rule[entry.rule].append(entry)
        rows = []
        for rule, entries in by_rule.items():
            worst = max(entries, key=lambda entry: abs(entry.asked - entry.allowed))
            ticks = len({entry.time_s for entry in entries})
            rows.append(
                {
                    "rule": rule,
                    "ticks": ticks,
                    "rate": ticks / self.ticks if self.ticks else 0.0,
                    "first_s": entries[0].time_s,
                    "field": collections.Counter(entry.field for entry in entries).most_common(1)[0][0],
                    "worst_s": worst.time_s,
                    "asked": worst.asked,
                    "allowed": worst.allowed,
                    "margin": min(entry.margin for entry in entries),
                }
            )
        return sorted(rows, key=lambda row: -row["ticks"])

    def figures(self) -> dict[str, Any]:
        """All of it for JSON, every single entry included."""
        summary = {
            "episode": self.episode,
            "limits": self.limits,
            "seconds": self.seconds,
            "ticks": self.ticks,
            "limited": self.limited,
            "scale": self.scale,
            "stops": sum(change.state in STOPS for change in self.changes),
            "in_state": self.in_state,
            "rules": self.rules(),
        }
        return summary | {
            "changes": [dataclasses.asdict(change) for change in self.changes],
            "entries": [dataclasses.asdict(entry) for entry in self.entries],
        }


def audit(path: Path) -> Audit:
    """Read a log. Raises LogError if it is none, is damaged, or holds no state of a robot host."""
    reader = EpisodeReader(path)
    first = last = -1
    began = ""
    ticks, limited, scales = 0, 0, 0.0
    entries: list[Entry] = []
    changes: list[tuple[int, str, str]] = []
    found: list[tuple[int, SafetyReport]] = []
    in_state: collections.Counter[str] = collections.Counter()
    for _, message in reader.messages(["/state", "/safety", "/event"]):
        if isinstance(message, State):
            if first >= 0:
                in_state[message.safety] += message.t_ns - last
            else:
                first, began = message.t_ns, message.safety
            last, ticks = message.t_ns, ticks + 1
        elif isinstance(message, SafetyReport):
            found.append((message.t_ns, message))
        elif isinstance(message, Event) and message.kind in WATCHED:
            changes.append((message.t_ns, "", f"{message.kind}: {message.text}"))
    if first < 0:
        raise LogError(f"{path}: holds no state of a robot host, so nothing can be said of its safety")
    for t_ns, report in found:
        time_s = (t_ns - first) * 1e-9
        if report.state != report.previous_state:
            changes.append((t_ns, report.state, report.reason))
        if report.interventions:
            limited, scales = limited + 1, scales + report.speed_scale
        entries += [
            Entry(time_s, item.rule, item.field, item.asked, item.allowed, item.margin, report.state)
            for item in report.interventions
        ]
    changes.sort(key=lambda change: change[0])
    metadata = reader.metadata
    return Audit(
        episode=path.stem,
        limits=str(metadata.get("safety_hash", "unknown")),
        began=began,
        seconds=(last - first) * 1e-9,
        ticks=ticks,
        limited=limited,
        scale=scales / limited if limited else 1.0,
        entries=tuple(entries),
        changes=tuple(Change((t - first) * 1e-9, state, reason) for t, state, reason in changes),
        in_state={state: time_ns * 1e-9 for state, time_ns in in_state.most_common()},
    )


COLOURS = {
    "off": "#9aa0a6", "ready": "#c9ced6", "active": "#7fb685", "reduced": "#b9d7a8", "hold": "#f2c14e",
    "protective_stop": "#d1495b", "e_stop": "#8d0801", "recovery": "#7da7d9",
}  # fmt: skip


def draw(found: Audit, path: Path) -> None:
    """A small timeline as PNG: a band of states, and a line of marks for each rule."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rules = [row["rule"] for row in found.rules()]
    figure = Figure(figsize=(9, 1.2 + 0.28 * (len(rules) + 1)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    states = [change for change in found.changes if change.state]
    bands = [(0.0, found.began), *((change.time_s, change.state) for change in states)]
    ends = [begin for begin, _ in bands[1:]] + [found.seconds]
    for (begin, state), end in zip(bands, ends, strict=True):
        axes.barh(0, end - begin, left=begin, height=0.8, color=COLOURS[state])
        if end - begin > 0.06 * found.seconds:
            axes.text((begin + end) / 2, 0, state, ha="center", va="center", fontsize=8)
    for line, rule in enumerate(rules, start=1):
        times = [entry.time_s for entry in found.entries if entry.rule == rule]
        axes.plot(times, [line] * len(times), "|", color="#333333", markersize=9)
    axes.set_yticks(range(len(rules) + 1), ["state", *rules], fontsize=8)
    axes.set_xlim(0, max(found.seconds, 1e-3))
    axes.set_ylim(-0.6, len(rules) + 0.6)
    axes.invert_yaxis()
    axes.set_xlabel("s")
    axes.set_title(f"{found.episode}: limits {found.limits[:12]}", fontsize=9)
    figure.savefig(path, dpi=120)
