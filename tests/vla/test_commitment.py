"""Chunks that go on from what the arm does meanwhile: whatever the head, what will be over is what was committed."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch

from contracts.toy_policy import HORIZON, TOY_HEADS, toy_checkpoint, toy_observation
from reflexarc.configs.action import ActionDim, ActionSpec
from reflexarc.configs.errors import PolicyError
from reflexarc.vla.commitment import commitment, continued
from reflexarc.vla.engine.guidance import soft_mask
from reflexarc.vla.preprocess import concatenate, to_inputs
from reflexarc.vla.runtime import VlaPolicy
from reflexarc.wire import geometry
from reflexarc.wire.messages import F64, ActionChunk, Observation


def going(steps: int = HORIZON, seed: int = 0) -> F64:
    """(K, 7) actions that the toy's tokenizer can say, within its bounds."""
    generator = np.random.default_rng(seed)
    grid = toy_checkpoint().actions
    bins = generator.integers(0, 256, (steps, 7))
    return grid.decode(np.where(grid.varies, bins, grid.encode(np.zeros(7))))


def told(committed: F64 | None, frozen: int, seq: int = 0) -> Observation:
    return msgspec.structs.replace(toy_observation(seq=seq), committed=committed, frozen_steps=frozen)


@pytest.mark.parametrize("head", TOY_HEADS)
@pytest.mark.parametrize("frozen", [1, 3, HORIZON])
def test_what_will_be_over_is_what_was_committed(head: str, frozen: int) -> None:
    policy = VlaPolicy(toy_checkpoint(head))
    chunk = policy.act(told(going(), frozen))
    np.testing.assert_array_equal(chunk.actions[:frozen], going()[:frozen])
    np.testing.assert_array_equal(chunk.bins, toy_checkpoint().actions.encode(chunk.actions))
    assert chunk.actions.shape == (HORIZON, 7)
    assert np.isfinite(chunk.actions).all()


@pytest.mark.parametrize("head", TOY_HEADS)
def test_robots_with_and_without_commitments_share_a_pass(head: str) -> None:
    policy = VlaPolicy(toy_checkpoint(head))
    asked = [told(None, 0, 0), told(going(), 2, 1), told(going(3, seed=1), 0, 2), told(going()[:, :5], 1, 3)]
    answers = policy.act_batch(asked)
    assert isinstance(answers[3], PolicyError)
    for answer, observation in zip(answers[:3], asked[:3], strict=True):
        alone = policy.act(observation)
        assert isinstance(answer, ActionChunk)
        np.testing.assert_allclose(answer.actions, alone.actions, atol=2e-4)
    free = policy.act(told(None, 0))
    assert isinstance(answers[0], ActionChunk)
    np.testing.assert_allclose(answers[0].actions, free.actions, atol=2e-4)


@torch.inference_mode()
def test_tokens_behind_committed_ones_are_those_that_follow_them() -> None:
    """Against teacher forcing: the committed tokens and then the head's own, all given at once."""
    checkpoint = toy_checkpoint("autoregressive")
    policy, model = VlaPolicy(checkpoint), checkpoint.model
    asked = [told(going(), 2, 0), told(going(seed=1), 3, 1)]
    inputs = to_inputs(concatenate([policy.raw(each) for each in asked]), checkpoint.stats)

    def prefix() -> tuple[object, ...]:
        tokens, keep = model.see(inputs)
        return model.think(inputs, tokens, keep)

    committed = commitment(asked, checkpoint.spec, checkpoint.actions)
    assert committed is not None
    assert committed.frozen == 2
    before, plan, _ = prefix()
    bins = model.head.decode(model.trunk, before, plan, committed).bins
    assert bins is not None
    before, plan, _ = prefix()
    logits = model.head(model.trunk, before, plan, bins)  # type: ignore[operator]
    below = logits.softmax(-1).cumsum(-1)
    expected = (below < 0.5).sum(-1).clamp_max(255)
    varies = torch.from_numpy(checkpoint.actions.varies)
    for row, frozen in enumerate((2, 3)):
        assert torch.equal(bins[row, :frozen], committed.bins[row, :frozen])
        assert torch.equal(bins[row, frozen:][:, varies], expected[row, frozen:][:, varies])
    before, plan, _ = prefix()
    free = model.head.decode(model.trunk, before, plan).bins
    assert free is not None
    assert not torch.equal(free[:, 3:], bins[:, 3:])  # the rest depends on what is committed


@pytest.mark.parametrize("head", ["flow"])
def test_a_flow_bends_towards_what_is_committed(head: str) -> None:
    policy = VlaPolicy(toy_checkpoint(head))
    grid = toy_checkpoint().actions
    free = policy.act(told(None, 0)).actions
    away = grid.restore(np.clip(grid.normalise(free) + 0.5, -1, 1))
    bent = policy.act(told(away, 1)).actions

    def miss(actions: F64) -> float:
        return float(np.abs(grid.normalise(actions) - grid.normalise(away))[1:3].mean())

    assert miss(bent) < 0.8 * miss(free)


def test_commitments_read_as_tokens_and_numbers() -> None:
    checkpoint = toy_checkpoint()
    grid = checkpoint.actions
    committed = commitment([told(going(3), 1), told(None, 0)], checkpoint.spec, grid)
    assert committed is not None
    np.testing.assert_array_equal(committed.bins[0, :3].numpy(), grid.encode(going(3)))
    np.testing.assert_allclose(committed.values[0, :3].numpy(), grid.normalise(going(3)), atol=1e-6)
    assert committed.weights[0, 0] == 1.0
    assert 0.0 < committed.weights[0, 2] < committed.weights[0, 1] < 1.0
    assert committed.weights[0, 3] == 0.0
    assert not committed.weights[1].any()
    assert committed.frozen == 0
    assert commitment([told(None, 0)], checkpoint.spec, grid) is None


def spec_of(*, joint: bool, delta: bool) -> ActionSpec:
    tcp = toy_checkpoint().spec
    if not joint:
        dims = [each.model_copy(update={"delta": delta and each.unit != "opening"}) for each in tcp.dims]
        return tcp.model_copy(update={"dims": tuple(dims)})
    joints = [
        ActionDim(name=f"q{k}", unit="rad", frame="joint", delta=delta, lower=-3, upper=3) for k in range(5)
    ]
    return tcp.model_copy(update={"dims": (*joints, tcp.dims[-1])})


def where(actions: F64, spec: ActionSpec) -> F64:
    """(H, D - 1) waypoints from an anchor at rest: positions and rotation vectors, or joints."""
    if not spec.dims[0].delta:
        return actions[:, :-1]
    if spec.dims[0].unit == "rad":
        return np.cumsum(actions[:, :-1], axis=0)
    quat, turns = geometry.identity_pose()[3:], []
    for turn in actions[:, 3:6]:
        quat = geometry.multiply(geometry.exp(turn), quat)
        turns.append(geometry.log(quat))
    return np.hstack([np.cumsum(actions[:, :3], axis=0), turns])


@pytest.mark.parametrize("delta", [True, False])
@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize(("kept", "frozen"), [(3, 1), (3, 0), (4, 4), (2, 2), (0, 0)])
def test_a_chunk_is_joined_to_what_is_committed_and_leads_where_it_would(
    joint: bool, delta: bool, kept: int, frozen: int
) -> None:
    spec = spec_of(joint=joint, delta=delta)
    generator = np.random.default_rng(kept * 10 + frozen)
    own, given = (generator.uniform(-0.1, 0.1, (rows, spec.size)) for rows in (HORIZON, kept))
    chunk = continued(own, told(given, frozen), spec)
    np.testing.assert_array_equal(chunk[:frozen], given[:frozen])
    np.testing.assert_array_equal(chunk[frozen:, -1], own[frozen:, -1])
    np.testing.assert_allclose(where(chunk, spec)[kept:], where(own, spec)[kept:], atol=1e-9)
    weights = soft_mask(frozen, kept, HORIZON)
    for step in range(frozen, kept):  # between the two, by the mask
        old, new, mixed = (where(each, spec)[step][:3] for each in (given, own, chunk))
        np.testing.assert_allclose(mixed, weights[step] * old + (1 - weights[step]) * new, atol=1e-9)


def test_where_nothing_is_committed_a_chunk_is_as_it_is() -> None:
    own = going()
    assert continued(own, told(None, 0), toy_checkpoint().spec) is own
