"""Rotations and poses: hand-computed values, and identities over random ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflexarc.wire import geometry
from reflexarc.wire.messages import F64

QUARTER = math.sqrt(0.5)

angles = st.floats(-3.0, 3.0, allow_nan=False)
rotvecs = st.tuples(angles, angles, angles).map(np.array).filter(lambda v: np.linalg.norm(v) < 3.1)


def test_quarter_turns_by_hand() -> None:
    about_z = geometry.exp(np.array([0.0, 0.0, math.pi / 2]))
    np.testing.assert_allclose(about_z, [QUARTER, 0, 0, QUARTER], atol=1e-15)
    np.testing.assert_allclose(geometry.rotate(about_z, np.array([1.0, 2.0, 3.0])), [-2, 1, 3], atol=1e-15)
    about_x = geometry.exp(np.array([math.pi / 2, 0.0, 0.0]))
    # First z, then x: the x axis goes to y and from there to z.
    both = geometry.multiply(about_x, about_z)
    np.testing.assert_allclose(geometry.rotate(both, np.array([1.0, 0.0, 0.0])), [0, 0, 1], atol=1e-15)


def test_poses_by_hand() -> None:
    about_z = np.array([QUARTER, 0, 0, QUARTER])
    a = geometry.pose(np.array([1.0, 0.0, 0.0]), about_z)
    b = geometry.pose(np.array([0.0, 2.0, 5.0]), np.array([1.0, 0, 0, 0]))
    np.testing.assert_allclose(geometry.compose(a, b), [-1, 0, 5, QUARTER, 0, 0, QUARTER], atol=1e-15)
    moved = geometry.apply_delta(a, np.array([0.1, 0.2, 0.3, 0, 0, math.pi / 2]))
    np.testing.assert_allclose(moved, [1.1, 0.2, 0.3, 0, 0, 0, 1], atol=1e-15)
    np.testing.assert_allclose(
        geometry.delta_between(a, moved), [0.1, 0.2, 0.3, 0, 0, math.pi / 2], atol=1e-12
    )


@given(rotvecs)
def test_exp_and_log_are_inverse(rotvec: F64) -> None:
    np.testing.assert_allclose(geometry.log(geometry.exp(rotvec)), rotvec, atol=1e-9)


@pytest.mark.parametrize("scale", [0.0, 1e-300, 1e-12, 1e-9, 1e-6])
def test_tiny_rotations_keep_their_axis(scale: float) -> None:
    rotvec = scale * np.array([1.0, -2.0, 3.0])
    np.testing.assert_allclose(geometry.log(geometry.exp(rotvec)), rotvec, rtol=1e-9, atol=0)


def test_log_takes_the_short_way() -> None:
    turn = geometry.exp(np.array([0.0, 0.0, 1.5 * math.pi]))
    np.testing.assert_allclose(geometry.log(turn), [0, 0, -0.5 * math.pi], atol=1e-12)
    np.testing.assert_allclose(geometry.log(-turn), geometry.log(turn), atol=1e-15)


@given(rotvecs, rotvecs)
def test_products_agree_with_matrices(a: F64, b: F64) -> None:
    p, q = geometry.exp(a), geometry.exp(b)
    matrix = geometry.to_matrix(p) @ geometry.to_matrix(q)
    np.testing.assert_allclose(geometry.to_matrix(geometry.multiply(p, q)), matrix, atol=1e-12)
    np.testing.assert_allclose(geometry.to_matrix(geometry.from_matrix(matrix)), matrix, atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(matrix), 1.0, atol=1e-12)
    vector = np.array([0.3, -0.2, 0.9])
    np.testing.assert_allclose(geometry.rotate(p, vector), geometry.to_matrix(p) @ vector, atol=1e-12)


@given(rotvecs, rotvecs)
def test_difference_is_what_leads_from_one_to_the_other(a: F64, b: F64) -> None:
    p, q = geometry.exp(a), geometry.exp(b)
    again = geometry.multiply(geometry.exp(geometry.difference(p, q)), q)
    np.testing.assert_allclose(abs(again @ p), 1.0, atol=1e-12)


@given(rotvecs, rotvecs, st.floats(0.0, 1.0))
def test_slerp_turns_at_constant_speed(a: F64, b: F64, fraction: float) -> None:
    p, q = geometry.exp(a), geometry.exp(b)
    whole = np.linalg.norm(geometry.difference(q, p))
    part = geometry.slerp(p, q, fraction)
    np.testing.assert_allclose(np.linalg.norm(part), 1.0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(geometry.difference(part, p)), fraction * whole, atol=1e-7)
    np.testing.assert_allclose(
        np.linalg.norm(geometry.difference(q, part)), (1 - fraction) * whole, atol=1e-7
    )


@given(rotvecs, rotvecs)
def test_jacobian_agrees_with_finite_differences(rotvec: F64, rate: F64) -> None:
    h = 1e-6
    ahead, behind = geometry.exp(rotvec + h * rate), geometry.exp(rotvec - h * rate)
    spin = geometry.difference(ahead, behind) / (2 * h)
    np.testing.assert_allclose(geometry.left_jacobian(rotvec, rate), spin, atol=1e-6)
    np.testing.assert_allclose(geometry.left_jacobian_inverse(rotvec, spin), rate, atol=1e-5)


@given(rotvecs, rotvecs)
def test_compose_and_inverse(a: F64, b: F64) -> None:
    p, q = geometry.pose(b, geometry.exp(a)), geometry.pose(a, geometry.exp(b))
    back = geometry.compose(geometry.inverse(p), geometry.compose(p, q))
    np.testing.assert_allclose(back[:3], q[:3], atol=1e-12)
    np.testing.assert_allclose(abs(back[3:] @ q[3:]), 1.0, atol=1e-12)
    delta = geometry.delta_between(p, q)
    again = geometry.apply_delta(p, delta)
    np.testing.assert_allclose(again[:3], q[:3], atol=1e-12)
    np.testing.assert_allclose(abs(again[3:] @ q[3:]), 1.0, atol=1e-12)


def test_results_share_no_memory_with_arguments() -> None:
    quat, point = np.array([1.0, 0, 0, 0]), np.zeros(3)
    made = geometry.pose(point, quat)
    made[:] = 9.0
    assert quat[0] == 1.0
    assert not point.any()
