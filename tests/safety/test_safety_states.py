"""Every (state, event) pair of the safety machine, and that no latched state leads to motion by itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from contracts.filter_bench import FilterBench
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety.states import STATES
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
    "shutdown": ("off", "off", "off", "off", "off", STOP, E_STOP, "off"),
    "fresh setpoint": ("off", "ready", "active", "reduced", "hold", STOP, E_STOP, "recovery"),
    "NaN setpoint": ("off", "ready", "hold", "hold", "hold", STOP, E_STOP, "hold"),
    "many NaN setpoints": ("off", "ready", STOP, STOP, "hold", STOP, E_STOP, STOP),
    "late setpoint": ("off", "ready", "hold", "hold", "hold", STOP, E_STOP, "hold"),
    "no setpoint any more": ("off", "ready", STOP, STOP, "hold", STOP, E_STOP, STOP),
    "old chunk": ("off", "ready", "hold", "hold", "hold", STOP, E_STOP, "hold"),
    "silent driver": ("off", "ready", STOP, STOP, STOP, STOP, E_STOP, STOP),
    "NaN measured": ("off", "ready", STOP, STOP, STOP, STOP, E_STOP, STOP),
    "high force": ("off", "ready", STOP, STOP, STOP, STOP, E_STOP, STOP),
    "clock goes back": ("off", "ready", STOP, STOP, STOP, STOP, E_STOP, STOP),
    "trip": ("off", "ready", STOP, STOP, STOP, STOP, E_STOP, STOP),
}
REQUESTS = ("enable", "disable", "reduce", "reset", "hold", "e_stop", "status", "shutdown")
REFUSED = {
    ("reset", "active"), ("reset", "reduced"), ("reset", "hold"), ("reset", "recovery"),
    ("enable", STOP), ("enable", E_STOP), ("disable", STOP), ("disable", E_STOP),
    ("hold", "off"), ("hold", "ready"), ("hold", STOP), ("hold", E_STOP),
    ("reduce", "off"), ("reduce", "ready"), ("reduce", "hold"), ("reduce", STOP), ("reduce", E_STOP),
    ("reduce", "recovery"),
}  # fmt: skip


def bring(bench: FilterBench, state: SafetyState) -> FilterBench:
    """Get into `state` (a person's hold, for `hold`) at rest, by requests and events only."""
    if state in ("ready", "recovery"):
        if state == "recovery":
            assert bench.request("enable")
            bench.tick(bench.setpoint())
        return bench
    bench.request("enable")
    bench.move(5)
    follow_up: dict[str, str] = {"off": "disable", "reduced": "reduce", "hold": "hold", E_STOP: "e_stop"}
    if state in follow_up:
        assert bench.request(follow_up[state])  # type: ignore[arg-type]
    elif state == STOP:
        bench.memory = bench.filter.trip(bench.memory, "for the test")
    for _ in range(60):
        bench.tick(bench.setpoint())
    assert bench.memory.at_rest
    return bench


def happen(bench: FilterBench, event: str) -> None:
    """Let `event` happen."""
    n = len(bench.robot.joints)
    if event in REQUESTS:
        granted = bench.request(event)  # type: ignore[arg-type]
        assert granted == ((event, bench.reports[-1].state if bench.reports else "ready") not in REFUSED)
    elif event == "fresh setpoint":
        bench.tick(bench.setpoint())
    elif event == "NaN setpoint":
        bench.tick(bench.setpoint(np.full(n, np.nan)))
    elif event == "many NaN setpoints":
        for _ in range(5):
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
    elif event == "high force":
        bench.wrench[2] = -100.0
        for _ in range(120):
            bench.tick(bench.setpoint())
    elif event == "clock goes back":
        bench.now_ns -= 10_000_000
        bench.tick(bench.setpoint())
    else:
        bench.memory = bench.filter.trip(bench.memory, "planted")


@pytest.fixture
def outside(robot: RobotConfig, safety: SafetyConfig) -> FilterBench:
    """An arm that stands outside its workspace."""
    box = safety.workspace.model_copy(update={"lower": (0.2, -0.45, 0.3)})
    return FilterBench(robot, safety.model_copy(update={"workspace": box}))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", TABLE)
def test_every_pair_of_state_and_event(
    state: SafetyState, event: str, bench: FilterBench, outside: FilterBench
) -> None:
    bench = bring(outside if state == "recovery" else bench, state)
    assert bench.state == state
    before = bench.memory.position
    happen(bench, event)
    assert bench.state == TABLE[event][STATES.index(state)]
    assert np.abs(bench.memory.position - before).max() < 1e-9, "none of these asks for motion"


def test_the_table_is_complete() -> None:
    assert all(len(row) == len(STATES) for row in TABLE.values())
    reached: set[str] = set().union(*TABLE.values())
    assert reached == set(STATES)


LATCHING: dict[str, Callable[[FilterBench], None]] = {
    "e_stop": lambda bench: bench.request("e_stop") and None,
    "no setpoint any more": lambda bench: bench.idle(0.8),
    "high force": lambda bench: happen(bench, "high force"),
    "silent driver": lambda bench: happen(bench, "silent driver"),
    "many NaN setpoints": lambda bench: happen(bench, "many NaN setpoints"),
}


@pytest.mark.parametrize("cause", LATCHING)
def test_a_latched_stop_takes_reset_enable_and_a_fresh_setpoint(cause: str, active: FilterBench) -> None:
    active.move(30)
    LATCHING[cause](active)
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
