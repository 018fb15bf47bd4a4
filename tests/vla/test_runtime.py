"""A checkpoint as a policy."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest

from contracts.toy_policy import HORIZON, TOY_HEADS, toy_checkpoint, toy_data, toy_observation
from reflexarc.configs.action import ActionSpec
from reflexarc.configs.errors import PolicyError
from reflexarc.vla.preprocess import proprio_features, to_inputs
from reflexarc.vla.runtime import VlaPolicy
from reflexarc.vla.train.batch import Batches
from reflexarc.wire import geometry
from reflexarc.wire.codec import decode, encode
from reflexarc.wire.contracts import Policy
from reflexarc.wire.messages import ActionChunk


@pytest.fixture(scope="module")
def policy() -> VlaPolicy:
    return VlaPolicy(toy_checkpoint())


def test_it_is_a_policy_and_says_what_it_needs(policy: VlaPolicy) -> None:
    assert isinstance(policy, Policy)
    assert policy.info.cameras == ["front", "wrist"]
    assert ActionSpec.model_validate_json(policy.info.action_spec).horizon == HORIZON


def test_a_chunk_holds_actions_bins_and_tokens_that_agree(policy: VlaPolicy) -> None:
    chunk = policy.act(toy_observation(seq=7, session="s"))
    actions = toy_checkpoint().actions
    assert (chunk.obs_seq, chunk.t_obs_ns, chunk.session) == (7, 1_000_000, "s")
    assert np.array_equal(chunk.actions, actions.decode(chunk.bins))
    assert chunk.bins.dtype == np.int16
    first = toy_checkpoint().words.size
    assert chunk.policy_tokens == [first + b for b in chunk.bins.flatten().tolist()]
    assert set(chunk.latency_ns) == {"preprocess", "vision", "prefix", "action"}
    again = decode(encode(chunk))
    assert isinstance(again, type(chunk))
    assert np.array_equal(again.actions, chunk.actions)


def test_the_same_observation_gives_the_same_chunk(policy: VlaPolicy) -> None:
    first, second = policy.act(toy_observation()), policy.act(toy_observation())
    assert np.array_equal(first.actions, second.actions)
    assert not np.shares_memory(first.actions, second.actions)


def test_an_observation_becomes_what_the_model_was_trained_on() -> None:
    """The path of acting and the path of training give the same tensors for the same instant."""
    checkpoint, data = toy_checkpoint(), toy_data()
    row = np.array([5])
    batches = Batches(
        data,
        checkpoint.config.model,
        actions=checkpoint.codec,
        words=checkpoint.words,
        stats=checkpoint.stats,
    )
    trained = batches.make(row).inputs
    pose = np.concatenate([data.tcp[5], [0.0, 1.0, 0.0, 0.0]])
    observation = toy_observation(
        instruction=data.instructions[data.episode[5]].upper() + "!",
        pose=pose,
        images={name: data.images(name, row)[0] for name in ("wrist", "front")},
    )
    gripper = float(data.gripper_commanded[5])
    state = msgspec.structs.replace(observation.state, gripper=gripper, gripper_commanded=gripper)
    acted = to_inputs(
        VlaPolicy(checkpoint).raw(msgspec.structs.replace(observation, state=state)), checkpoint.stats
    )
    for name in ("images", "words", "proprio", "tcp"):
        assert np.allclose(getattr(trained, name), getattr(acted, name), atol=1e-6), name


def test_a_batch_is_answered_as_each_alone_would_be(policy: VlaPolicy) -> None:
    words = ("reach the red ball", "lift it", "push the blue block to the left")
    asked = [toy_observation(seq=seq, instruction=text) for seq, text in enumerate(words)]
    bad = toy_observation(seq=9, size=48)
    answers = policy.act_batch([asked[0], bad, *asked[1:]])
    assert isinstance(answers[1], PolicyError)
    for observation, answer in zip(asked, [answers[0], *answers[2:]], strict=True):
        alone = policy.act(observation)
        assert isinstance(answer, ActionChunk)
        assert answer.obs_seq == observation.seq
        # Sums over a batch round differently: where two bins are as good as equal the neighbour may win.
        assert np.abs(answer.bins.astype(int) - alone.bins).max() <= 1


def test_rotation_features_are_columns_of_the_rotation_matrix() -> None:
    quat = geometry.exp(np.array([0.3, -1.0, 2.0]))
    pose = np.concatenate([[1.0, 2.0, 3.0], quat])[None]
    ones = np.ones(1)
    features = proprio_features(
        ("rotation",),
        pose=pose,
        pose_commanded=pose,
        gripper=ones,
        gripper_commanded=ones,
        wrench=np.zeros((1, 6)),
    )
    matrix = geometry.to_matrix(quat)
    assert np.allclose(features[0], np.concatenate([matrix[:, 0], matrix[:, 1]]))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"cameras": ("front", "side")}, "needs camera wrist: unknown camera 'wrist'; known: front, side"),
        ({"size": 48}, "camera front: image of 48x48; toy needs 32x32"),
        ({"pose": np.array([np.nan, 0, 0, 0, 1, 0, 0])}, "state holds values that are not finite"),
        ({"instruction": "go " * 30}, "instruction of 30 words; this policy reads at most 8"),
    ],
)
def test_bad_observations_are_refused_in_one_line(
    policy: VlaPolicy, change: dict[str, object], text: str
) -> None:
    with pytest.raises(PolicyError, match=text) as caught:
        policy.act(toy_observation(**change))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_camera_may_be_missing_where_the_model_allows_it() -> None:
    checkpoint = toy_checkpoint()
    config = checkpoint.config.model_copy(
        update={"model": checkpoint.config.model.model_copy(update={"may_miss": ("wrist",)})}
    )
    policy = VlaPolicy(dataclasses.replace(checkpoint, config=config))
    both, one = toy_observation(), toy_observation(cameras=("front",))
    assert policy.act(one).actions.shape == policy.act(both).actions.shape
    with pytest.raises(PolicyError, match="needs camera front"):
        policy.act(toy_observation(cameras=("wrist",)))


@pytest.mark.parametrize("head", TOY_HEADS)
def test_every_head_says_actions_bins_and_its_own_tokens(head: str) -> None:
    """What executes lies within the grid, is shown as its nearest bins, and comes again for the same observation."""
    checkpoint = toy_checkpoint(head)
    policy = VlaPolicy(checkpoint)
    chunk, again = policy.act(toy_observation()), policy.act(toy_observation())
    grid = checkpoint.actions
    assert np.array_equal(chunk.actions, again.actions)
    assert np.array_equal(chunk.bins, grid.encode(chunk.actions))
    assert np.all(np.abs(chunk.actions - grid.decode(chunk.bins)) <= grid.step / 2 + 1e-12)
    assert chunk.tokenizer_id == policy.info.tokenizer_id
    counts = {"parallel": HORIZON * 7, "autoregressive": HORIZON * 7, "regression": 0, "flow": 0}
    assert len(chunk.policy_tokens) == counts.get(head, len(chunk.policy_tokens))
    allowed = policy.info.tokens
    assert len(chunk.policy_tokens) <= allowed.most
    assert all(allowed.first <= token < allowed.end for token in chunk.policy_tokens)
    if head == "fast":
        assert checkpoint.fast is not None
        assert chunk.tokenizer_id == checkpoint.fast.id
