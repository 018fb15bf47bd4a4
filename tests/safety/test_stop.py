"""The planned stop ends at rest, never exceeds acceleration or jerk, and wastes little of them."""

from __future__ import annotations

import numpy as np
import pytest

from reflexarc.safety.stop import MOST_TICKS, stop_plan
from reflexarc.wire.messages import F64

FREE = np.array([1e9, 1e9])
NO_TCP = np.zeros((6, 3))


def plan_of(velocity: F64, change: F64, most: F64, step: F64) -> F64:
    """The stop of three joints whose TCP is not limited."""
    return stop_plan(velocity, change, most, step, NO_TCP, FREE, FREE)


def test_every_stop_is_legal_and_ends_at_rest() -> None:
    """Accelerations of every size, jerk from 1/100 of an acceleration a tick to ten of them."""
    rng = np.random.default_rng(0)
    for _ in range(3000):
        most = rng.uniform(0.01, 0.1, 3)
        step = most * 10 ** rng.uniform(-2, 1, 3)
        velocity = rng.normal(0, 1, 3) * 10 ** rng.uniform(-4, 0)
        change = most * rng.uniform(-1, 1, 3) * (rng.random() < 0.7)
        plan = plan_of(velocity, change, most, step)
        assert not plan[-1].any()
        whole = np.vstack([velocity - change, velocity, plan, np.zeros((2, 3))])
        changes = np.diff(whole, axis=0)
        assert (np.abs(changes) <= most * (1 + 1e-9)).all()
        assert (np.abs(np.diff(changes, axis=0)) <= step * (1 + 1e-9)).all()


def test_the_tcp_brakes_within_its_own_limits() -> None:
    rng = np.random.default_rng(1)
    jacobian = rng.normal(0, 1, (6, 3))
    change, step = np.array([0.02, 0.03]), np.array([0.005, 0.004])
    most = np.full(3, 1e3)
    velocity = np.array([0.5, -0.3, 0.8])
    plan = stop_plan(velocity, np.zeros(3), most, most, jacobian, change, step)
    rates = np.vstack([velocity, velocity, plan, np.zeros((2, 3))]) @ jacobian.T
    for part, (most_change, most_step) in enumerate(zip(change, step, strict=True)):
        changes = np.diff(rates[:, 3 * part : 3 * part + 3], axis=0)
        assert np.linalg.norm(changes, axis=1).max() <= most_change * (1 + 1e-9)
        assert np.linalg.norm(np.diff(changes, axis=0), axis=1).max() <= most_step * (1 + 1e-9)


def test_joints_brake_together_on_a_straight_line() -> None:
    velocity = np.array([1.0, -0.5, 0.2])
    plan = plan_of(velocity, np.zeros(3), np.full(3, 0.05), np.full(3, 0.02))
    assert np.abs(plan - np.outer(plan[:, 0] / velocity[0], velocity)).max() < 1e-15


@pytest.mark.parametrize("jerk", [1.0, 0.05, 0.005])
def test_the_stop_takes_little_longer_than_it_must(jerk: float) -> None:
    """Braking at a takes v/a ticks, and jerk adds a/j: at most two ticks more, for rounding to whole ones."""
    plan = plan_of(np.array([1.0, 0.0, 0.0]), np.zeros(3), np.full(3, 0.05), np.full(3, jerk))
    assert len(plan) <= 1.0 / 0.05 + max(0.05 / jerk, 1.0) + 2


def test_an_arm_at_rest_needs_no_stop() -> None:
    zero = np.zeros(3)
    assert plan_of(zero, zero, np.ones(3), np.ones(3)).shape == (0, 3)


def test_a_stop_without_end_is_said_to_be_one() -> None:
    plan = plan_of(np.ones(3), np.zeros(3), np.full(3, 1e-6), np.full(3, 1e-6))
    assert len(plan) == MOST_TICKS + 1
    assert plan.all()
