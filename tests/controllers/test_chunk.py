"""Waypoints by hand-computed numbers, and what a chunk is refused for."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from contracts.controller_bench import moves
from reflexarc.configs.action import ActionDim, ActionSpec, tcp_delta_spec
from reflexarc.configs.errors import ControlError
from reflexarc.controllers.chunk import Anchor, action_space, bounds, clip_to_bounds, compose, refusal
from reflexarc.wire.messages import ActionChunk, TokenRange

SPEC = tcp_delta_spec(2, 0.1)
SAID = TokenRange(first=100, end=356, most=14)
QUARTER = math.sqrt(0.5)


def anchor(point: tuple[float, ...] = (0.4, 0.0, 0.2)) -> Anchor:
    size = len(point)
    return Anchor(1_000, np.array(point), np.array([0.0, 1.0, 0.0, 0.0]), np.zeros(size), np.zeros(3))


def joint_spec(joints: int, delta: bool = False) -> ActionSpec:
    dims = [
        ActionDim(name=f"j{i}", unit="rad", frame="joint", delta=delta, lower=-3, upper=3)
        for i in range(joints)
    ]
    gripper = ActionDim(name="gripper", unit="opening", frame="gripper", delta=False, lower=0, upper=1)
    return ActionSpec(id="joints", dims=(*dims, gripper), step_s=0.1, horizon=2)


def chunk(actions: np.ndarray, /, **changes: object) -> ActionChunk:
    made = ActionChunk(
        t_ns=0,
        obs_seq=0,
        t_obs_ns=0,
        actions=actions,
        bins=np.zeros(actions.shape, dtype=np.int16),
        policy_tokens=[],
        tokenizer_id="",
        step_ns=SPEC.step_ns,
        spec_id=SPEC.id,
        model_id="m",
    )
    return msgspec.structs.replace(made, **changes)


def test_deltas_add_up_from_the_anchor() -> None:
    actions = np.array([[0.01, 0.02, -0.03, 0, 0, 0, 1.0], [0.03, -0.02, 0.01, 0, 0, 0, 0.25]])
    knots = compose(actions, SPEC, "tcp", anchor(), 5_000)
    np.testing.assert_allclose(knots.points, [[0.4, 0, 0.2], [0.41, 0.02, 0.17], [0.44, 0, 0.18]], atol=1e-15)
    assert [knots.due_ns(k) for k in range(3)] == [5_000, 100_005_000, 200_005_000]
    assert knots.end_ns == 200_005_000


def test_turns_are_applied_from_the_left_in_the_base_frame() -> None:
    actions = np.array([[0, 0, 0, 0, 0, math.pi / 2, 1.0], [0, 0, 0, math.pi / 2, 0, 0, 1.0]])
    knots = compose(actions, SPEC, "tcp", anchor(), 0)
    # About x by π, then about z by π/2, then about x by π/2.
    np.testing.assert_allclose(np.abs(knots.quats[1]), [0, QUARTER, QUARTER, 0], atol=1e-12)
    np.testing.assert_allclose(np.abs(knots.quats[2]), [0.5, 0.5, 0.5, 0.5], atol=1e-12)


def test_the_grippers_value_holds_during_its_step() -> None:
    actions = np.array([[0, 0, 0, 0, 0, 0, 0.7], [0, 0, 0, 0, 0, 0, 0.2]])
    knots = compose(actions, SPEC, "tcp", anchor(), 1_000)
    assert knots.gripper_at(0) == 0.7
    assert knots.gripper_at(1_000) == 0.7
    assert knots.gripper_at(100_000_999) == 0.7
    assert knots.gripper_at(100_001_000) == 0.2
    assert knots.gripper_at(10**12) == 0.2


def test_first_after_counts_only_what_is_still_to_come() -> None:
    knots = compose(moves(2, (0.01,)), SPEC, "tcp", anchor(), 0)
    assert [knots.first_after(t) for t in (-5, 0, 99_999_999, 100_000_000, 199_999_999, 200_000_000)] == [
        1,
        1,
        1,
        2,
        2,
        3,
    ]


def test_joint_positions_are_taken_as_they_are_and_joint_deltas_add_up() -> None:
    actions = np.array([[0.1, 0.2, 1.0], [0.3, 0.1, 1.0]])
    start = anchor((1.0, 2.0))
    absolute = compose(actions, joint_spec(2), "joint", start, 0)
    np.testing.assert_allclose(absolute.points, [[1, 2], [0.1, 0.2], [0.3, 0.1]])
    delta = compose(actions, joint_spec(2, delta=True), "joint", start, 0)
    np.testing.assert_allclose(delta.points, [[1, 2], [1.1, 2.2], [1.4, 2.3]])


def test_action_spaces_are_told_apart() -> None:
    assert action_space(SPEC, 7) == "tcp"
    assert action_space(joint_spec(7), 7) == "joint"
    with pytest.raises(
        ControlError, match=r"unknown action space 'joints = \[j0, .*gripper\]'.*7 joints in rad"
    ):
        action_space(joint_spec(6), 7)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"actions": np.zeros((3, 7))}, r"shape (3, 7), tcp-delta-7/h2/100ms has (2, 7)"),
        ({"actions": np.zeros((2, 6))}, r"shape (2, 6), tcp-delta-7/h2/100ms has (2, 7)"),
        ({"actions": np.full((2, 7), np.nan)}, r"actions[0].dx is nan, it must be finite"),
        ({"spec_id": "other"}, r"spec_id is 'other', this controller executes 'tcp-delta-7/h2/100ms'"),
        ({"step_ns": 50_000_000}, r"step_ns is 50000000, tcp-delta-7/h2/100ms has 100000000"),
    ],
)
def test_refusals_name_field_and_value(changes: dict[str, object], text: str) -> None:
    assert text in refusal(chunk(moves(2, (0.01,)), **changes), SPEC, SAID)


def test_one_infinity_among_good_numbers_is_found() -> None:
    actions = moves(2, (0.01,))
    assert refusal(chunk(actions), SPEC, SAID) == ""
    actions[1, 5] = -np.inf
    assert refusal(chunk(actions), SPEC, SAID) == "actions[1].drz is -inf, it must be finite"


def test_values_beyond_the_spec_are_clipped_and_named() -> None:
    actions = moves(2, (0.01,), gripper=1.5)
    clipped, text = clip_to_bounds(actions, SPEC, bounds(SPEC))
    assert text == "actions[0].gripper is 1.5, outside [0, 1]; clipped (and 1 more)"
    np.testing.assert_array_equal(clipped[:, -1], 1.0)
    np.testing.assert_array_equal(clipped[:, :-1], actions[:, :-1])
    assert actions[0, -1] == 1.5
    assert clip_to_bounds(moves(2, (0.01,), gripper=1.0 + 1e-9), SPEC, bounds(SPEC))[1] == ""


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"bins": np.full((2, 7), 256, dtype=np.int16)}, "bins hold 256, a bin is within -1..255"),
        ({"bins": np.full((2, 7), -2, dtype=np.int16)}, "bins hold -2"),
        ({"policy_tokens": [105, -1]}, "policy_tokens hold -1, those of this policy are 100..355"),
        ({"policy_tokens": [355, 356]}, "policy_tokens hold 356, those of this policy are 100..355"),
        ({"policy_tokens": [99]}, "policy_tokens hold 99"),
        ({"policy_tokens": [1 << 62]}, "policy_tokens hold 4611686018427387904"),
        ({"policy_tokens": [100] * 15}, "policy_tokens are 15, this policy says 14 in a chunk at most"),
    ],
)
def test_tokens_out_of_range_are_refused(changes: dict[str, object], text: str) -> None:
    assert text in refusal(chunk(moves(2, (0.01,)), **changes), SPEC, SAID)
    edge = np.array([[-1, 255, 0, 1, 2, 3, 4]] * 2, dtype=np.int16)
    assert refusal(chunk(moves(2, (0.01,)), bins=edge, policy_tokens=[100, 355] * 7), SPEC, SAID) == ""


def test_tokens_of_a_policy_that_told_of_none_are_refused() -> None:
    silent = TokenRange()
    assert refusal(chunk(moves(2, (0.01,))), SPEC, silent) == ""
    refused = refusal(chunk(moves(2, (0.01,)), policy_tokens=[0]), SPEC, silent)
    assert refused == "policy_tokens are 1, this policy says 0 in a chunk at most"
