"""Interpolation, braking and take-over: continuity by finite differences, no overshoot, bounds kept."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.controller_bench import STEP_NS, moves
from reflexarc.configs.action import tcp_delta_spec
from reflexarc.controllers.blend import Blend, settle
from reflexarc.controllers.chunk import Anchor, Knots, compose
from reflexarc.controllers.interpolate import Braking, CubicPath, LinearPath
from reflexarc.controllers.jerk import JerkLimitedPath, MotionLimits, acceleration_before
from reflexarc.controllers.path import Path, Sample, Stop
from reflexarc.wire import geometry
from reflexarc.wire.messages import F64

BRAKING = Braking(1.0, 4.0)
DOWN = np.array([0.0, 1.0, 0.0, 0.0])
MILLISECOND = 1_000_000
LIMITS = MotionLimits(
    np.array([1.0] * 3 + [4.0] * 3), np.array([8.0] * 3 + [32.0] * 3), np.array([500.0] * 3 + [2000.0] * 3)
)

deltas = st.lists(
    st.tuples(*[st.floats(-0.03, 0.03)] * 3, *[st.floats(-0.3, 0.3)] * 3), min_size=1, max_size=8
).map(lambda rows: np.array([[*row, 1.0] for row in rows]))
"""Chunks (H, 7)."""


def through(
    actions: F64, velocity: tuple[float, ...] = (0, 0, 0), spin: tuple[float, ...] = (0, 0, 0)
) -> Knots:
    """The knots of a chunk from (0.4, 0, 0.2), due from time 0 on."""
    anchor = Anchor(
        0, np.array([0.4, 0.0, 0.2]), DOWN, np.array(velocity, dtype=float), np.array(spin, dtype=float)
    )
    return compose(actions, tcp_delta_spec(len(actions), 0.1), "tcp", anchor, 0)


def still(point: tuple[float, ...] = (0.4, 0.0, 0.2)) -> Sample:
    return Sample(np.array(point), DOWN, np.zeros(3), np.zeros(3))


def samples(path: Path, until_ns: int, step_ns: int = MILLISECOND) -> list[Sample]:
    return [path.sample(t) for t in range(0, until_ns + 1, step_ns)]


def largest_jumps(path: Path, until_ns: int) -> tuple[float, float]:
    """How far velocity, m/s, and spin, rad/s, change at most within one millisecond."""
    seen = samples(path, until_ns, MILLISECOND)
    velocity = max(np.linalg.norm(b.velocity - a.velocity) for a, b in itertools.pairwise(seen))
    spin = max(np.linalg.norm(b.spin - a.spin) for a, b in itertools.pairwise(seen))
    return float(velocity), float(spin)


def check_rates(path: Path, until_ns: int, atol: float = 2e-3, since_ns: int = 0) -> None:
    """The velocity and spin that a path tells are those that it has."""
    h = 10_000
    for t in range(since_ns + 3 * h, until_ns, 7 * MILLISECOND):
        before, here, after = path.sample(t - h), path.sample(t), path.sample(t + h)
        measured = (after.point - before.point) / (2 * h * 1e-9)
        np.testing.assert_allclose(here.velocity, measured, atol=atol)
        turned = geometry.difference(after.quat, before.quat) / (2 * h * 1e-9)
        np.testing.assert_allclose(here.spin, turned, atol=5 * atol)


@pytest.mark.parametrize("kind", [LinearPath, CubicPath])
@given(deltas)
def test_paths_pass_their_knots_on_time(kind: type[LinearPath | CubicPath], actions: F64) -> None:
    knots = through(actions)
    path = kind(knots, BRAKING)
    for k in range(knots.steps + 1):
        here = path.sample(knots.due_ns(k))
        np.testing.assert_allclose(here.point, knots.points[k], atol=1e-12)
        np.testing.assert_allclose(abs(here.quat @ knots.quats[k]), 1.0, atol=1e-12)


@given(deltas)
def test_cubic_velocity_is_true_and_continuous(actions: F64) -> None:
    knots = through(actions, velocity=(0.1, -0.1, 0.05), spin=(0.2, 0.0, -0.5))
    path = CubicPath(knots, BRAKING)
    check_rates(path, knots.end_ns - STEP_NS // 20, atol=0.02)
    velocity, spin = largest_jumps(path, path.rest_ns)
    # Within a segment |a| ≤ 6|d|/h² + 4|v0|/h + 2|v1|/h with |v| ≤ 3|d|/h: below 100 m/s², 1000 rad/s².
    assert velocity < 0.1
    assert spin < 1.0
    np.testing.assert_allclose(path.sample(0).velocity, [0.1, -0.1, 0.05])


@given(deltas)
def test_cubic_never_overshoots_between_knots_once_under_way(actions: F64) -> None:
    knots = through(actions)
    path = CubicPath(knots, BRAKING)
    for k in range(knots.steps):
        low = np.minimum(knots.points[k], knots.points[k + 1]) - 1e-12
        high = np.maximum(knots.points[k], knots.points[k + 1]) + 1e-12
        for t in range(knots.due_ns(k), knots.due_ns(k + 1), STEP_NS // 10):
            point = path.sample(t).point
            assert np.all(point >= low)
            assert np.all(point <= high)


def test_a_steady_line_is_travelled_at_one_speed() -> None:
    path = CubicPath(through(moves(4, (0.02, 0.01, 0.0)), velocity=(0.2, 0.1, 0.0)), BRAKING)
    for sample in samples(path, 4 * STEP_NS):
        np.testing.assert_allclose(sample.velocity, [0.2, 0.1, 0.0], atol=1e-12)


@pytest.mark.parametrize("kind", [LinearPath, CubicPath])
def test_an_expert_that_slows_to_zero_is_not_overrun(kind: type[LinearPath | CubicPath]) -> None:
    actions = moves(6, (0.0,))
    actions[:, 0] = [0.02, 0.01, 0.005, 0.0025, 0.0, 0.0]
    knots = through(actions, velocity=(0.2, 0.0, 0.0))
    path = kind(knots, BRAKING)
    x = np.array([sample.point[0] for sample in samples(path, 2 * knots.end_ns)])
    assert np.all(np.diff(x) > -1e-12)
    assert x.max() <= 0.4 + actions[:, 0].sum() + 1e-12
    assert path.rest_ns == knots.end_ns


def test_a_chunk_that_runs_out_while_slowing_down_ends_slower_than_its_last_step() -> None:
    actions = moves(3, (0.0,))
    actions[:, 0] = [0.02, 0.01, 0.005]
    end = CubicPath(through(actions, velocity=(0.2, 0, 0)), BRAKING).sample(3 * STEP_NS)
    # Next step 0.0025 by the trend; the harmonic mean of 0.05 and 0.025 m/s.
    np.testing.assert_allclose(end.velocity, [1 / 30, 0, 0], atol=1e-12)


@pytest.mark.parametrize("kind", [LinearPath, CubicPath])
def test_a_path_that_runs_out_brakes_as_configured(kind: type[LinearPath | CubicPath]) -> None:
    knots = through(moves(3, (0.03, 0.0, 0.04)))
    path = kind(knots, BRAKING)
    assert path.rest_ns == knots.end_ns + 500_000_000
    after = [path.sample(t) for t in range(knots.end_ns, path.rest_ns + STEP_NS, 10 * MILLISECOND)]
    speeds = np.array([np.linalg.norm(sample.velocity) for sample in after])
    assert speeds[0] == pytest.approx(0.5)
    np.testing.assert_allclose(-np.diff(speeds)[:49] / 0.01, 1.0, rtol=1e-6)
    assert speeds[51] == 0.0
    # v²/2a beyond the last waypoint.
    assert np.linalg.norm(after[-1].point - knots.points[-1]) == pytest.approx(0.125)
    np.testing.assert_array_equal(after[-1].point, after[-2].point)


def test_a_stop_turns_to_rest_too() -> None:
    stop = Stop(Sample(np.zeros(3), DOWN, np.zeros(3), np.array([0.0, 0.0, 2.0])), 0, 1.0, 4.0)
    end = stop.sample(stop.rest_ns)
    assert stop.rest_ns == 500_000_000
    np.testing.assert_allclose(geometry.difference(end.quat, DOWN), [0, 0, 0.5], atol=1e-12)
    np.testing.assert_array_equal(end.spin, 0.0)
    check_rates(stop, 2 * stop.rest_ns)


def blend(old: Path, new: Path, join_ns: int, shortest_s: float = 0.05) -> Blend:
    """From `old` into `new`, within LIMITS."""
    here = old.sample(join_ns)
    return Blend(here, acceleration_before(old, here, join_ns), new, join_ns, shortest_s, LIMITS)


@given(deltas, deltas)
def test_take_over_jumps_neither_in_place_nor_in_velocity(first: F64, second: F64) -> None:
    old = CubicPath(through(first), BRAKING)
    new = CubicPath(through(second, velocity=(0.1, 0, 0)), BRAKING)
    join = 30 * MILLISECOND
    taken = blend(old, new, join)
    end = next(t for t in range(join, 20 * STEP_NS, MILLISECOND) if taken.settled(t) is new)
    for t, path in ((join, old), (end, new)):
        for shift in (-1, 0, 1):
            there, here = path.sample(t), taken.sample(t + shift)
            np.testing.assert_allclose(here.point, there.point, atol=1e-7)
            np.testing.assert_allclose(abs(here.quat @ there.quat), 1.0, atol=1e-7)
            np.testing.assert_allclose(here.velocity, there.velocity, atol=1e-5)
            np.testing.assert_allclose(here.spin, there.spin, atol=1e-5)
    assert settle(taken, join) is taken
    assert settle(taken, end) is new
    assert end - join >= 50 * MILLISECOND


def test_a_gap_is_closed_in_a_straight_line_within_its_limits() -> None:
    gap = np.array([0.02, -0.03, 0.01])
    old, new = Stop(still(), 0, 1.0, 4.0), Stop(still((0.42, -0.03, 0.21)), 0, 1.0, 4.0)
    taken = blend(old, new, 0)
    seen = samples(taken, taken.rest_ns + STEP_NS)
    way = np.array([sample.point for sample in seen]) - seen[0].point
    along = way @ gap / np.linalg.norm(gap)
    assert np.linalg.norm(way - np.outer(along, gap / np.linalg.norm(gap)), axis=1).max() < 1e-9
    assert np.diff(along).min() > -1e-12
    np.testing.assert_allclose(way[-1], gap, atol=1e-9)
    acceleration = np.diff([sample.velocity for sample in seen], axis=0) / 1e-3
    assert np.abs(acceleration).max() <= LIMITS.acceleration[0] + 1e-6
    assert np.abs(np.diff(acceleration, axis=0) / 1e-3).max() <= LIMITS.jerk[0] + 1.0
    check_rates(taken, taken.rest_ns + STEP_NS)


def test_take_over_into_the_same_path_changes_nothing() -> None:
    path = CubicPath(through(moves(4, (0.02, 0.01, 0.0, 0.1, 0.0, 0.2))), BRAKING)
    taken = blend(path, path, 3 * STEP_NS // 2)
    for t in range(3 * STEP_NS // 2, 3 * STEP_NS, 10 * MILLISECOND):
        np.testing.assert_allclose(taken.sample(t).point, path.sample(t).point, atol=1e-5)
        np.testing.assert_allclose(taken.sample(t).spin, path.sample(t).spin, atol=1e-2)


@given(deltas)
def test_jerk_limited_paths_keep_their_limits(actions: F64) -> None:
    knots = through(actions)
    path = JerkLimitedPath(knots, Braking(1.0, 4.0, rest=True), LIMITS)
    seen = samples(path, path.rest_ns + STEP_NS)
    velocity = np.array([sample.velocity for sample in seen])
    acceleration = np.diff(velocity, axis=0) / 1e-3
    assert np.abs(velocity).max() <= 1.0 + 1e-6
    assert np.abs(acceleration).max() <= 8.0 + 1e-3
    assert np.abs(np.diff(acceleration[1:], axis=0) / 1e-3).max() <= 500.0 + 1.0
    np.testing.assert_allclose(seen[-1].point, knots.points[-1], atol=1e-9)
    np.testing.assert_allclose(abs(seen[-1].quat @ knots.quats[-1]), 1.0, atol=1e-9)
    np.testing.assert_allclose(seen[-1].velocity, 0.0, atol=1e-9)


def test_a_jerk_limited_path_is_on_time_where_it_can_be() -> None:
    knots = through(moves(4, (0.02, 0.0, 0.0)), velocity=(0.2, 0.0, 0.0))
    path = JerkLimitedPath(knots, BRAKING, LIMITS)
    for k in range(5):
        np.testing.assert_allclose(path.sample(knots.due_ns(k)).point, knots.points[k], atol=1e-6)
    check_rates(path, knots.end_ns - MILLISECOND)
