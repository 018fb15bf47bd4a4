"""Torque stays within its magnitude and its rate, whatever a servo law comes up with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import floats

from reflexarc.configs.errors import SafetyError
from reflexarc.configs.robot import RobotConfig
from reflexarc.safety.torque import TorqueLimits, limit_torque
from reflexarc.wire.messages import F64

LIMITS = TorqueLimits(names=("a", "b"), effort=np.array([87.0, 12.0]), step=np.array([5.0, 5.0]))


@given(arrays(np.float64, (12, 2), elements=floats(-1e300, 1e300)))
def test_no_sequence_leaves_magnitude_or_rate(asked: F64) -> None:
    torque = np.zeros(2)
    for wanted in asked:
        after = limit_torque(torque, wanted, LIMITS)
        assert (np.abs(after) <= LIMITS.effort).all()
        assert (np.abs(after - torque) <= LIMITS.step * (1 + 1e-12)).all()
        torque = after


def test_what_is_within_the_limits_passes_unchanged() -> None:
    asked = np.array([3.0, -4.0])
    assert (limit_torque(np.zeros(2), asked, LIMITS) == asked).all()


def test_a_torque_beyond_its_limit_falls_at_its_rate() -> None:
    assert limit_torque(np.array([100.0, 0.0]), np.zeros(2), LIMITS).tolist() == [95.0, 0.0]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_torque_that_is_not_finite_is_refused_by_name(number: float) -> None:
    with pytest.raises(SafetyError, match=r"asked torque of joint b is .*must be finite"):
        limit_torque(np.zeros(2), np.array([0.0, number]), LIMITS)


def test_limits_are_the_published_ones_at_the_rate_of_the_host(robot: RobotConfig) -> None:
    limits = TorqueLimits.of(robot)
    assert limits.effort.tolist() == [87.0] * 4 + [12.0] * 3
    assert limits.step == pytest.approx(1000.0 * 0.005)
