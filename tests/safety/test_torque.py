"""What a servo is sent stays within its magnitude and its rate, whatever its law comes up with; cuts are told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import floats

from reflexarc.configs.errors import SafetyError
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety.torque import InputLimits, limit_input
from reflexarc.wire.messages import F64

LIMITS = InputLimits(
    what="torque",
    names=("a", "b"),
    most=np.array([87.0, 12.0]),
    step=np.array([5.0, 5.0]),
    rules=("effort", "effort_rate"),
)


@given(arrays(np.float64, (12, 2), elements=floats(-1e300, 1e300)))
def test_no_sequence_leaves_magnitude_or_rate(asked: F64) -> None:
    torque = np.zeros(2)
    for wanted in asked:
        after, _ = limit_input(torque, wanted, LIMITS)
        assert (np.abs(after) <= LIMITS.most).all()
        assert (np.abs(after - torque) <= LIMITS.step * (1 + 1e-12)).all()
        torque = after


def test_what_is_within_the_limits_passes_unchanged() -> None:
    asked = np.array([3.0, -4.0])
    given, cut = limit_input(np.zeros(2), asked, LIMITS)
    assert (given == asked).all()
    assert cut == ()


def test_a_torque_beyond_its_limit_falls_at_its_rate() -> None:
    assert limit_input(np.array([100.0, 0.0]), np.zeros(2), LIMITS)[0].tolist() == [95.0, 0.0]


def test_what_was_cut_is_told_of_the_joint_that_lost_most() -> None:
    given, cut = limit_input(np.array([0.0, -9.0]), np.array([88.0, -30.0]), LIMITS)
    assert given.tolist() == [5.0, -12.0]
    told = [(item.rule, item.field, item.asked, item.allowed) for item in cut]
    assert told == [("effort", "b", -30.0, -12.0), ("effort_rate", "a", 87.0, 5.0)]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_torque_that_is_not_finite_is_refused_by_name(number: float) -> None:
    with pytest.raises(SafetyError, match=r"asked torque of joint b is .*must be finite"):
        limit_input(np.zeros(2), np.array([0.0, number]), LIMITS)


def test_limits_are_the_published_ones_at_the_rate_of_the_host(
    robot: RobotConfig, safety: SafetyConfig
) -> None:
    limits = InputLimits.torque(robot)
    assert limits.most.tolist() == [87.0] * 4 + [12.0] * 3
    assert limits.step == pytest.approx(1000.0 * 0.005)
    own, filtered = InputLimits.velocity(robot, None), InputLimits.velocity(robot, safety)
    assert own.most.tolist() == [joint.velocity for joint in robot.joints]
    assert filtered.most == pytest.approx(safety.velocity_scale * own.most)
    assert filtered.step == pytest.approx([0.005 * joint.acceleration for joint in robot.joints])
