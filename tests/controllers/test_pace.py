"""Time that is slowed: places stay, and what is due later is due later still."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.controller_bench import CONTROL_NS, STEP_NS, STEP_S, Rig, moves
from reflexarc.configs.action import tcp_delta_spec
from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.errors import ControlError
from reflexarc.controllers.pace import FALL_PER_S, RISE_PER_S, Pace
from reflexarc.wire.messages import SafetyReport

MS = 1_000_000
LINE = (0.01, 0.0, 0.0)


def test_at_full_pace_path_time_is_host_time() -> None:
    pace = Pace()
    for k in range(1, 50):
        assert pace.advance(k * 10 * MS, 1.0) == k * 10 * MS
    assert pace.path_ns(123 * MS) == 123 * MS
    assert pace.path_ns(900 * MS) == 900 * MS


def test_the_pace_changes_at_a_bounded_rate_and_time_never_goes_back() -> None:
    pace, times, speeds = Pace(), [], []
    for k in range(1, 200):
        times.append(pace.advance(k * 10 * MS, 0.2 if 20 < k < 100 else 1.0))
        speeds.append(pace.speed)
    change = np.diff(speeds) / 0.01
    assert change.min() >= -FALL_PER_S - 1e-9
    assert change.max() <= RISE_PER_S + 1e-9
    assert np.diff(times).min() >= 0
    assert speeds[60] == pytest.approx(0.2)
    assert speeds[-1] == 1.0
    for k in (30, 60, 120):  # what was, can be looked up
        assert pace.path_ns((k + 1) * 10 * MS) == times[k]


def rig(**config: object) -> Rig:
    """A policy that goes on along a line, 1 cm a step."""
    settings = ControllerConfig.model_validate(config)
    return Rig(lambda _: moves(16, LINE), tcp_delta_spec(16, STEP_S), 0, settings)


def test_at_half_speed_the_same_line_takes_twice_the_time() -> None:
    full, half = rig().run(1.0).path[:, 0], rig(speed_scale=0.5).run(2.0).path[:, 0]
    assert half[-1] - half[0] == pytest.approx(full[-1] - full[0], abs=0.01)
    assert np.diff(half).max() < 0.6 * np.diff(full).max()


def test_the_scale_can_be_set_while_it_runs() -> None:
    slow = rig()
    slow.run(1.0)
    slow.controller.set_speed_scale(0.25)
    slow.run(0.5)
    before = slow.log.path[-1, 0]
    slow.run(1.0)
    assert slow.log.path[-1, 0] - before == pytest.approx(0.25 * 0.1, abs=2e-3)
    with pytest.raises(ControlError, match=r"speed_scale is 1\.5"):
        slow.controller.set_speed_scale(1.5)


def test_what_safety_does_not_allow_slows_the_path_and_it_recovers() -> None:
    limited = rig()
    limited.run(1.0)
    for _ in range(20):
        report = SafetyReport(
            t_ns=limited.now_ns,
            clock="virtual",
            seq=0,
            state="active",
            previous_state="active",
            interventions=[],
            speed_scale=0.5,
        )
        limited.controller.on_report(report)
        limited.run(CONTROL_NS * 1e-9)
    assert limited.controller.pace < 0.3
    limited.run(5 * STEP_NS * 1e-9)
    assert limited.controller.pace == 1.0
    assert np.diff(limited.log.path[:, 0]).min() > -1e-6


def test_a_model_that_thinks_long_is_followed_more_slowly() -> None:
    spec = tcp_delta_spec(8, STEP_S)
    for latency_ns, pace in ((100_000_000, 1.0), (300_000_000, 0.5), (10 * STEP_NS, 0.25)):
        config = ControllerConfig(unhurried_s=0.15)
        slow = Rig(lambda _: moves(8, (0.004, 0.0, 0.0)), spec, latency_ns, config)
        slow.run(3.0)
        assert slow.controller.pace == pytest.approx(pace, abs=0.01)


def test_nothing_that_safety_says_makes_the_path_stand() -> None:
    """A path that stands asks for what is refused for ever; one that goes on leads out of it, or to a new chunk."""
    refused = rig()
    refused.run(1.0)
    asked, before = len(refused.log.observations), refused.log.path[-1, 0]
    for _ in range(200):
        refused.controller.on_report(not_allowed(refused))
        refused.run(CONTROL_NS * 1e-9)
    assert refused.controller.pace == pytest.approx(0.25)
    assert refused.log.path[-1, 0] - before > 0.2 * 2.0 * 0.1
    assert len(refused.log.observations) > asked + 2


def not_allowed(bench: Rig) -> SafetyReport:
    """Of a host that lets none of the motion through."""
    return SafetyReport(
        t_ns=bench.now_ns,
        clock="virtual",
        seq=0,
        state="active",
        previous_state="active",
        interventions=[],
        speed_scale=0.0,
    )
