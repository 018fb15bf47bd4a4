"""The safety machine driven through every pair of state and event: for the tests, and for docs/safety-states.md."""

from __future__ import annotations

import dataclasses
from typing import get_args

import numpy as np

from contracts.filter_bench import FilterBench
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety.states import STATES
from reflexarc.wire.geometry import rotate
from reflexarc.wire.messages import HostAction, SafetyState

REQUESTS: tuple[HostAction, ...] = get_args(HostAction)
HAPPENINGS: dict[str, str] = {
    "fresh setpoint": "a good setpoint, made after the enable",
    "NaN setpoint": "one setpoint that is not finite, or malformed otherwise",
    "many NaN setpoints": "five of them in a row",
    "late setpoint": "no setpoint for 150 ms",
    "no setpoint any more": "no setpoint for 600 ms",
    "old chunk": "a setpoint whose chunk is 3 s old",
    "silent driver": "a reading that is 80 ms old",
    "NaN measured": "a reading that is not finite",
    "press": "1.5 times the force ceiling, while asked to press on",
    "long press": "1.5 times the force ceiling for 1.2 s",
    "blow": "five times the force ceiling, for 0.6 s",
    "frozen encoder": "commanded motion that no encoder shows",
    "clock goes back": "time runs backwards by 10 ms",
    "clock jumps": "time jumps ahead by 2 s",
    "overruns": "twenty late ticks in a row",
    "trip": "a cause outside the filter: monitor lost, driver refuses commands",
}
EVENTS = (*REQUESTS, *HAPPENINGS)


def outside(robot: RobotConfig, safety: SafetyConfig) -> FilterBench:
    """An arm that stands outside its workspace."""
    box = safety.workspace.model_copy(update={"lower": (0.2, -0.45, 0.3)})
    return FilterBench(robot, safety.model_copy(update={"workspace": box}))


def brought(robot: RobotConfig, safety: SafetyConfig, state: SafetyState) -> FilterBench:
    """A filter in `state` (a person's hold, for `hold`) at rest, by requests and events only."""
    bench = outside(robot, safety) if state == "recovery" else FilterBench(robot, safety)
    if state == "recovery":
        assert bench.request("enable")
        bench.tick(bench.setpoint())
    if state in ("ready", "recovery"):
        return bench
    bench.request("enable")
    bench.move(5)
    follow_up: dict[str, HostAction] = {
        "off": "disable",
        "reduced": "reduce",
        "hold": "hold",
        "e_stop": "e_stop",
    }
    if state in follow_up:
        assert bench.request(follow_up[state])
    elif state == "protective_stop":
        bench.memory = bench.filter.trip(bench.memory, "for the table")
    for _ in range(60):
        bench.tick(bench.setpoint())
    assert bench.memory.at_rest
    assert bench.state == state
    return bench


def happen(bench: FilterBench, event: str) -> bool:
    """Let `event` happen; whether a request was granted (True for what nobody asked for)."""
    if event in REQUESTS:
        return bench.request(event)  # type: ignore[arg-type]
    n = len(bench.robot.joints)
    safety = bench.filter._safety
    if event == "fresh setpoint":
        bench.tick(bench.setpoint())
    elif event in ("NaN setpoint", "many NaN setpoints"):
        for _ in range(1 if event == "NaN setpoint" else 5):
            bench.tick(bench.setpoint(np.full(n, np.nan)))
    elif event == "late setpoint":
        bench.idle(0.15)
    elif event == "no setpoint any more":
        bench.idle(0.6)
    elif event == "old chunk":
        bench.tick(bench.setpoint(chunk_age_ns=3_000_000_000))
    elif event == "silent driver":
        bench.reading_age_ns = 80_000_000
        bench.tick(bench.setpoint())
    elif event == "NaN measured":
        measured = bench.reading(np.full(n, np.nan), 1.0)
        _, bench.memory, _ = bench.filter.filter(bench.memory, measured, None, bench.now_ns)
    elif event in ("press", "long press", "blow"):
        _press(bench, event, safety.force_ceiling)
    elif event == "frozen encoder":
        _freeze(bench)
    elif event == "clock goes back":
        bench.now_ns -= 10_000_000
        bench.tick(bench.setpoint())
    elif event == "clock jumps":
        bench.now_ns += 2_000_000_000
        bench.tick(bench.setpoint())
    elif event == "overruns":
        for _ in range(safety.integrity.overrun_ticks):
            bench.now_ns += bench.robot.tick_ns
            bench.tick(bench.setpoint())
    elif event == "trip":
        bench.memory = bench.filter.trip(bench.memory, "planted")
    else:
        raise ValueError(f"no event {event!r}; known: {', '.join(EVENTS)}")
    return True


def _press(bench: FilterBench, event: str, ceiling: float) -> None:
    bench.wrench[2] = -1.5 * ceiling if event != "blow" else -5 * ceiling
    push = bench.memory.view.jacobian.T @ rotate(bench.memory.view.pose[3:], bench.wrench[:3])
    for _ in range({"press": 3, "long press": 240, "blow": 120}[event]):
        asked = bench.memory.position - 1e-3 * push / np.abs(push).max()
        bench.tick(bench.setpoint(asked if event == "press" else None))


def _freeze(bench: FilterBench) -> None:
    """Led away by a legal stream while the encoders stand."""
    frozen = bench.memory.position.copy()
    for tick in range(60):
        asked = frozen.copy()
        asked[6] += 0.0012 * tick
        measured = bench.reading(frozen, 1.0)
        setpoint = bench.setpoint(asked)
        _, bench.memory, report = bench.filter.filter(bench.memory, measured, setpoint, bench.now_ns)
        bench.reports.append(report)
        bench.now_ns += bench.robot.tick_ns


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """state: that the event led to; granted: whether a request was; moved: rad, by the joint that went furthest."""

    state: SafetyState
    granted: bool
    moved: float


def table(robot: RobotConfig, safety: SafetyConfig) -> dict[tuple[str, SafetyState], Outcome]:
    """Where every event leads from every state."""
    found = {}
    for state in STATES:
        start = brought(robot, safety, state)
        for event in EVENTS:
            bench = start.branch()
            granted = happen(bench, event)
            moved = float(np.abs(bench.memory.position - start.memory.position).max())
            found[event, state] = Outcome(bench.state, granted, moved)
    return found
