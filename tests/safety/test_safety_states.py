"""Every (state, event) pair of the safety machine, and that no latched state leads to motion by itself."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from contracts.filter_bench import FilterBench
from contracts.state_events import EVENTS, HAPPENINGS, REQUESTS, Outcome, happen, table
from reflexarc.configs.load import load_robot
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety import Memory
from reflexarc.safety.states import ENABLED, LATCHED, STATES
from reflexarc.wire.messages import SafetyState

E_STOP, STOP = "e_stop", "protective_stop"

# Requests first, then what can happen to a running filter. Columns in the order of STATES:
#                    off      ready    active    reduced   hold      stop   e_stop  recovery
TABLE: dict[str, tuple[str, ...]] = {
    "enable": ("active", "active", "active", "active", "active", STOP, E_STOP, "recovery"),
    "disable": ("off", "off", "off", "off", "off", STOP, E_STOP, "off"),
    "reduce": ("off", "ready", "reduced", "reduced", "hold", STOP, E_STOP, "recovery"),
    "reset": ("ready", "ready", "active", "reduced", "hold", "ready", "ready", "recovery"),
    "hold": ("off", "ready", "hold", "hold", "hold", STOP, E_STOP, "hold"),
    "e_stop": (E_STOP,) * 8,
    "status": ("off", "ready", "active", "reduced", "hold", STOP, E_STOP, "recovery"),
    "speed": ("off", "ready", "active", "reduced", "hold", STOP, E_STOP, "recovery"),
    "shutdown": ("off", "off", "off", "off", "off", STOP, E_STOP, "off"),
    "fresh setpoint": ("off", "ready", "active", "reduced", "hold", STOP, E_STOP, "recovery"),
    "NaN setpoint": ("off", "ready", "hold", "hold", "hold", STOP, E_STOP, "hold"),
    "many NaN setpoints": ("off", "ready", STOP, STOP, "hold", STOP, E_STOP, STOP),
    "late setpoint": ("off", "ready", "hold", "hold", "hold", STOP, E_STOP, "hold"),
    "no setpoint any more": ("off", "ready", STOP, STOP, "hold", STOP, E_STOP, STOP),
    "old chunk": ("off", "ready", "hold", "hold", "hold", STOP, E_STOP, "hold"),
    "silent driver": ("off", "ready", STOP, STOP, STOP, STOP, E_STOP, STOP),
    "NaN measured": ("off", "ready", STOP, STOP, STOP, STOP, E_STOP, STOP),
    "press": ("off", "ready", "hold", "hold", "hold", STOP, E_STOP, "hold"),
    "long press": ("off", "ready", STOP, STOP, STOP, STOP, E_STOP, STOP),
    "blow": ("off", "ready", STOP, STOP, STOP, STOP, E_STOP, STOP),
    "frozen encoder": ("off", "ready", STOP, STOP, "hold", STOP, E_STOP, STOP),
    "clock goes back": ("off", "ready", STOP, STOP, STOP, STOP, E_STOP, STOP),
    "clock jumps": ("off", "ready", STOP, STOP, STOP, STOP, E_STOP, STOP),
    "overruns": ("off", "ready", STOP, STOP, STOP, STOP, E_STOP, STOP),
    "trip": ("off", "ready", STOP, STOP, STOP, STOP, E_STOP, STOP),
}
REFUSED = {
    ("reset", "active"), ("reset", "reduced"), ("reset", "hold"), ("reset", "recovery"),
    ("enable", STOP), ("enable", E_STOP), ("disable", STOP), ("disable", E_STOP),
    ("hold", "off"), ("hold", "ready"), ("hold", STOP), ("hold", E_STOP),
    ("reduce", "off"), ("reduce", "ready"), ("reduce", "hold"), ("reduce", STOP), ("reduce", E_STOP),
    ("reduce", "recovery"),
}  # fmt: skip
MOVES = {"frozen encoder", "press", "long press", "blow"}
"""Events that ask for motion, or give way to what presses."""


@pytest.fixture(scope="module")
def pairs(robot: RobotConfig, safety: SafetyConfig) -> dict[tuple[str, SafetyState], Outcome]:
    return table(robot, safety)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", TABLE)
def test_every_pair_of_state_and_event(
    state: SafetyState, event: str, pairs: dict[tuple[str, SafetyState], Outcome]
) -> None:
    outcome = pairs[event, state]
    assert outcome.state == TABLE[event][STATES.index(state)]
    assert outcome.granted == ((event, state) not in REFUSED)
    if event not in MOVES or state in LATCHED | {"off", "ready"}:
        assert outcome.moved < 1e-9, "none of these asks for motion"


def test_the_table_is_complete() -> None:
    assert tuple(TABLE) == EVENTS
    assert all(len(row) == len(STATES) for row in TABLE.values())
    reached: set[str] = set().union(*TABLE.values())
    assert reached == set(STATES)


def test_the_page_is_what_the_filter_does(pairs: dict[tuple[str, SafetyState], Outcome]) -> None:
    script = Path(__file__).resolve().parents[2] / "scripts" / "safety_states.py"
    printed = runpy.run_path(str(script))["page"](pairs)
    assert (script.parent.parent / "docs" / "safety-states.md").read_text() == printed


PHASES = ("free", "latched", "reset", "enabled")
"""What a person has done since a latch: nothing, a reset, an enable; `free` again with the first fresh setpoint."""

Node = tuple[FilterBench, str, float]


def key_of(bench: FilterBench, phase: str) -> tuple[object, ...]:
    """What decides the machine's future, without the numbers that only say where the arm is."""
    memory: Memory = bench.memory
    return (
        phase, memory.state, memory.mode, memory.held, memory.silent, memory.at_rest, memory.refused,
        memory.last is None, min(memory.bad_count, 3), bool(memory.giving_way), bool(bench.wrench.any()),
        bench.reading_age_ns,
    )  # fmt: skip


def later(bench: FilterBench, event: str) -> FilterBench:
    """A copy in which `event` has happened, and the consequences of one more tick."""
    after = bench.branch()
    if event in REQUESTS:
        after.request(event)  # type: ignore[arg-type]
        after.tick()
    elif event == "asks to move":
        for _ in range(4):
            after.tick(after.setpoint(after.memory.position + 0.01, np.full(7, 0.1)))
    elif event == "asked before":
        moved = after.setpoint(after.memory.position + 0.01, np.full(7, 0.1))
        for _ in range(4):
            after.tick(after.stamped(moved, t_ns=after.memory.enabled_ns - 1))
    elif event == "silence":
        after.idle(0.2)
    elif event == "strike":
        after.wrench[2] = -100.0
        for _ in range(5):
            after.tick(after.setpoint())
    elif event == "let go":
        after.wrench[:], after.reading_age_ns = 0, 0
        after.tick()
    else:
        happen(after, event)
    return after


@pytest.mark.timeout(900)
def test_no_path_from_a_latched_state_to_motion_but_reset_enable_and_a_fresh_setpoint(
    safety: SafetyConfig,
) -> None:
    """Exhaustive: every event from every state that is reachable, until nothing new is found."""
    first = FilterBench(load_robot("panda", ["tick_hz=100"]), safety)  # half the ticks of every silence
    extra = ("asks to move", "asked before", "silence", "strike", "let go")
    slow = ("frozen encoder", "long press", "blow", "overruns")  # they latch by the same code as others do
    events = (*REQUESTS, *extra, *(event for event in HAPPENINGS if event not in slow))
    seen = {key_of(first, "free")}
    todo: list[tuple[FilterBench, str]] = [(first, "free")]
    steps, unlatched = 0, 0
    while todo:
        bench, phase = todo.pop()
        for event in events:
            steps += 1
            after, reached = later(bench, event), phase
            came_from_rest = bench.memory.at_rest
            if after.state in LATCHED:
                reached = "latched"
            elif event == "reset" and phase == "latched" and after.state == "ready":
                reached = "reset"
            elif phase == "reset" and after.state in ENABLED:
                assert event == "enable", f"{event} enabled the arm"
                reached = "enabled"
            moves = after.memory.velocity.any() and came_from_rest
            if moves:
                assert phase in ("free", "enabled"), f"{event} moved the arm in phase {phase}, {after.state}"
                if phase == "enabled":
                    # What gives way to a contact is not asked for, and needs none.
                    assert event in ("asks to move", "strike", *MOVES), (
                        f"{event} moved the arm without a fresh setpoint"
                    )
                    assert after.memory.last is not None
                    assert after.memory.last.t_ns >= after.memory.enabled_ns
            if after.memory.last is not None and reached == "enabled":
                reached, unlatched = "free", unlatched + 1
            if phase in ("latched", "reset") and reached == phase:
                assert after.state in LATCHED | {"ready", "off"}
            key = key_of(after, reached)
            if key not in seen:
                seen.add(key)
                todo.append((after, reached))
    assert {phase for phase, *_ in seen} == set(PHASES)
    assert unlatched > 0
    assert steps > 1000, "the search found hardly anything"
    print(f"{len(seen)} situations, {steps} steps")


LATCHING = (
    "e_stop", "no setpoint any more", "blow", "silent driver", "many NaN setpoints", "clock jumps", "overruns",
    "frozen encoder", "trip",
)  # fmt: skip


@pytest.mark.parametrize("cause", LATCHING)
def test_a_latched_stop_takes_reset_enable_and_a_fresh_setpoint(cause: str, active: FilterBench) -> None:
    active.move(30)
    happen(active, cause)
    active.tick()
    latched = active.state
    assert latched in (STOP, E_STOP)
    old = active.setpoint(active.memory.position + 0.05)
    active.idle(0.5, old)
    active.wrench[:] = 0
    active.reading_age_ns = 0
    assert active.memory.at_rest
    still = active.memory.position.copy()

    for _ in range(20):
        active.tick(active.setpoint(still + 0.05, np.full(7, 0.3)))
    assert not active.request("enable")
    assert not active.request("disable")
    assert active.state == latched
    assert active.request("reset")
    for _ in range(20):
        active.tick(active.setpoint(still + 0.05, np.full(7, 0.3)))
    assert active.state == "ready"
    assert np.array_equal(active.memory.position, still), "a reset never causes motion"

    before = active.setpoint(still + 0.05)
    active.now_ns += active.robot.tick_ns
    assert active.request("enable")
    for _ in range(20):
        active.tick(before)
    assert active.state == "active"
    assert np.array_equal(active.memory.position, still), "a setpoint made before the enable is not fresh"

    for _ in range(20):
        active.tick(active.setpoint(still + 0.05))
    assert np.abs(active.memory.position - still).max() > 0.01


def test_no_reset_or_enable_while_still_stopping(active: FilterBench) -> None:
    active.move(30)
    assert active.request("e_stop")
    active.tick()
    assert not active.memory.at_rest
    assert not active.request("reset")
    active.idle(0.5)
    assert active.request("reset")


def test_a_person_s_hold_stays_until_enabled(active: FilterBench) -> None:
    active.move(30)
    assert active.request("hold")
    active.move(40)
    assert active.state == "hold"
    still = active.memory.position.copy()
    active.idle(1.0)
    assert active.state == "hold", "a person's hold does not turn into a stop"
    assert active.request("enable")
    active.move(10)
    assert active.state == "active"
    assert np.abs(active.memory.position - still).max() > 0


def test_enabled_without_any_setpoint_waits(bench: FilterBench) -> None:
    assert bench.request("enable")
    bench.idle(3.0)
    assert bench.state == "active"
    assert np.array_equal(bench.memory.position, bench.stream[0])


def test_every_change_of_state_is_in_a_report(active: FilterBench) -> None:
    active.request("hold")
    active.tick()
    active.request("enable")
    active.tick(active.setpoint())
    active.idle(1.0)
    changes = [(r.previous_state, r.state) for r in active.reports if r.previous_state != r.state]
    assert changes == [
        ("ready", "active"), ("active", "hold"), ("hold", "active"), ("active", "hold"), ("hold", STOP)
    ]  # fmt: skip


@pytest.mark.parametrize("category", [0, 1])
def test_an_arm_with_brakes_is_released_after_a_protective_stop(
    category: int, robot: RobotConfig, safety: SafetyConfig
) -> None:
    bench = FilterBench(robot.model_copy(update={"stop_category": category}), safety)
    bench.request("enable")
    bench.move(30)
    bench.memory = bench.filter.trip(bench.memory, "planted")
    bench.tick()
    assert not bench.filter.released(bench.memory)
    bench.idle(0.5)
    assert bench.filter.released(bench.memory)
