"""Joints that follow a target within their limits: exactly where they can, never beyond, and they catch up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.load import load_robot
from reflexarc.controllers.tracker import JointLimits, JointTracker
from reflexarc.wire.messages import F64

H = 0.01
HOME = np.array(load_robot("panda").home)


def tracker() -> JointTracker:
    """At home, at rest."""
    found = JointTracker(JointLimits.of(load_robot("panda"), ControllerConfig()))
    found.start(HOME, np.zeros(7))
    return found


def motion(found: JointTracker, targets: F64, velocities: F64) -> tuple[F64, F64]:
    """Positions and velocities (T + 1, 7) while the targets (T, 7) are followed."""
    places, rates = [found.position], [found.velocity]
    for target, velocity in zip(targets, velocities, strict=True):
        found.follow(target, velocity, H)
        places.append(found.position)
        rates.append(found.velocity)
    return np.array(places), np.array(rates)


def check_limits(limits: JointLimits, places: F64, rates: F64) -> None:
    """Velocity, and acceleration and jerk as the differences of velocity from tick to tick."""
    acceleration = np.diff(rates, axis=0) / H
    assert np.all(np.abs(rates) <= limits.velocity + 1e-6)
    assert np.all(np.abs(acceleration) <= limits.acceleration + 1e-6)
    assert np.all(np.abs(np.diff(acceleration, axis=0)) <= 2 * limits.jerk * H + 1e-6)
    # And the places are where those velocities lead.
    middle = 0.5 * (rates[1:] + rates[:-1]) * H
    assert np.all(np.abs(np.diff(places, axis=0) - middle) <= limits.jerk * H**3)


def test_a_smooth_target_is_followed_without_any_lag() -> None:
    t = H * np.arange(1, 300)[:, None]
    swing = 0.05 * np.ones(7)
    targets = HOME + swing * (1 - np.cos(2 * t)) ** 2
    velocities = swing * 2 * (1 - np.cos(2 * t)) * 2 * np.sin(2 * t)
    places, rates = motion(tracker(), targets, velocities)
    np.testing.assert_allclose(places[1:], targets, atol=1e-12)
    np.testing.assert_allclose(rates[1:], velocities, atol=1e-12)


def test_a_step_is_reached_within_the_limits_and_not_overshot() -> None:
    found = tracker()
    goal = HOME + np.linspace(-0.1, 0.2, 7)
    places, rates = motion(found, np.tile(goal, (150, 1)), np.zeros((150, 7)))
    check_limits(found.limits, places, rates)
    np.testing.assert_allclose(places[-1], goal, atol=1e-9)
    over = (places - goal) * np.sign(goal - HOME)
    assert over.max() < 1e-9


@pytest.mark.parametrize("speed", [0.1, 0.5])
def test_a_target_that_starts_at_once_is_caught_up_with(speed: float) -> None:
    found = tracker()
    velocities = np.full((200, 7), speed)
    targets = HOME + np.cumsum(velocities, axis=0) * H
    places, rates = motion(found, targets, velocities)
    check_limits(found.limits, places, rates)
    np.testing.assert_allclose(places[-1], targets[-1], atol=1e-9)


@given(st.lists(st.tuples(st.floats(-0.5, 0.5), st.floats(-5, 5)), min_size=1, max_size=12))
def test_no_target_makes_the_joints_leave_their_limits(wild: list[tuple[float, float]]) -> None:
    found = tracker()
    targets = np.repeat([HOME + step for step, _ in wild], 7, axis=0)
    velocities = np.repeat([np.full(7, rate) for _, rate in wild], 7, axis=0)
    places, rates = motion(found, targets, velocities)
    check_limits(found.limits, places, rates)
