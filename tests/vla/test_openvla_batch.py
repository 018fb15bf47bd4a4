"""Several robots in one pass, pictures that have not changed, committed actions: the same answers, less work."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from contracts import openvla_small as small
from contracts.openvla_folder import SMALL_TOWERS, add_oft, write_folder
from contracts.toy_policy import toy_observation
from reflexarc.configs.engine import EngineConfig
from reflexarc.configs.errors import PolicyError
from reflexarc.configs.foreign import OpenVlaConfig
from reflexarc.vla.openvla import layout as layouts
from reflexarc.vla.openvla import policy as policies
from reflexarc.vla.openvla.policy import OpenVlaPolicy
from reflexarc.wire.contracts import BatchPolicy
from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import ActionChunk, Observation

KINDS = ("openvla", "oft", "film")


@pytest.fixture(scope="module", autouse=True)
def _small_towers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, shape in SMALL_TOWERS.items():
            patch.setitem(layouts.TOWERS, name, shape)
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("folders")
    made = {kind: write_folder(root / kind) for kind in KINDS}
    add_oft(made["oft"])
    add_oft(made["film"], film=True)
    return made


def policy_of(folders: dict[str, Path], kind: str, *, settings: Any = None, **engine: Any) -> OpenVlaPolicy:
    cameras = ("front",) if kind == "openvla" else ("front", "wrist")
    how = {"statistics": "bridge_orig", "cameras": cameras, "engine": EngineConfig(**engine)}
    return OpenVlaPolicy(folders[kind], OpenVlaConfig(**how, **(settings or {})))


def observation(seq: int, instruction: str = "lift the red cube", **pictures: str) -> Observation:
    """Pictures are named: the same name is the same picture."""
    template = toy_observation(seq=seq)
    shown = {"front": f"front {seq}", "wrist": f"wrist {seq}"} | pictures
    images = {
        camera: encode_image(small.image(name), camera=camera, seq=seq, t_capture_ns=template.t_obs_ns)
        for camera, name in shown.items()
    }
    return msgspec.structs.replace(template, images=images, instruction=instruction)


def alike(one: ActionChunk, other: ActionChunk) -> bool:
    """A number that a head regresses may lie on the border of two bins."""
    bins = np.abs(one.bins.astype(int) - other.bins).max()
    return bool(bins <= 1 and np.allclose(one.actions, other.actions, atol=1e-5))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_answered_as_one_by_one(folders: dict[str, Path], kind: str) -> None:
    policy = policy_of(folders, kind, reuse_vision=False)
    assert isinstance(policy, BatchPolicy)
    asked = [
        observation(0),
        observation(1),
        observation(2, "open the drawer"),  # another length: a pass of its own
        observation(3, "open the cube"),
    ]
    together = policy.act_batch(asked)
    alone = [policy.act(each) for each in asked]
    for one, other, each in zip(together, alone, asked, strict=True):
        assert isinstance(one, ActionChunk)
        assert one.obs_seq == each.seq
        assert alike(one, other)
        assert {"preprocess", "vision", "action", "others"} == set(one.latency_ns)
        assert {"preprocess", "vision", "action"} == set(other.latency_ns)
    assert not alike(alone[0], alone[1])


def test_what_one_prompt_takes_is_no_preparation_of_another(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = policy_of(folders, "openvla")
    now, decode, prepare = [0], policy._model.decode, policy._asked
    monkeypatch.setattr(policies, "time", SimpleNamespace(perf_counter_ns=lambda: now[0]))

    def passing(time_ns: int, run: Any, *given: Any) -> Any:
        now[0] += time_ns
        return run(*given)

    policy._asked = functools.partial(passing, 10, prepare)  # type: ignore[method-assign]
    monkeypatch.setattr(policy._model, "decode", functools.partial(passing, 1000, decode))
    asked = [observation(0), observation(1, "open the drawer"), observation(2, "open the cube")]
    answers = [each for each in policy.act_batch(asked) if isinstance(each, ActionChunk)]
    assert [each.latency_ns["preprocess"] for each in answers] == [30, 30, 30]
    assert [each.latency_ns["action"] for each in answers] == [1000, 1000, 1000]
    assert [each.latency_ns["others"] for each in answers] == [1000, 1000, 1000]
    assert [sum(each.latency_ns.values()) for each in answers] == [now[0]] * 3


def test_one_that_cannot_be_answered_disturbs_no_other(folders: dict[str, Path]) -> None:
    policy = policy_of(folders, "openvla")
    good, blind = observation(0), msgspec.structs.replace(observation(1), images={})
    answers = policy.act_batch([blind, good])
    assert isinstance(answers[0], PolicyError)
    assert "no image of camera 'front'" in str(answers[0])
    assert isinstance(answers[1], ActionChunk)
    assert alike(answers[1], policy.act(good))


@pytest.mark.parametrize("kind", ["oft", "film"])
def test_a_camera_that_has_not_changed_is_not_seen_again(folders: dict[str, Path], kind: str) -> None:
    policy, fresh = policy_of(folders, kind), policy_of(folders, kind, reuse_vision=False)
    seen: list[int] = []
    features = policy._model.features

    def counted(images: Any, mean: Any = None) -> torch.Tensor:
        seen.append(len(images[0]))
        return features(images, mean)

    policy._eyes._model.features = counted  # type: ignore[method-assign]
    asked = [
        (observation(0), 2),
        (observation(1, wrist="wrist 0"), 1),  # only the front camera has a new picture
        (observation(2, front="front 1", wrist="wrist 0"), 0),
        (observation(3, "open the cube", front="front 1", wrist="wrist 0"), 2 if kind == "film" else 0),
    ]
    for each, new in asked:
        seen.clear()
        assert alike(policy.act(each), fresh.act(each))
        assert sum(seen) == new


@pytest.mark.parametrize("resize", ["bicubic", "lanczos3"])
def test_pictures_prepared_on_the_device_give_the_same_answer(folders: dict[str, Path], resize: str) -> None:
    """Lanczos is the processor's all the same, where a picture has not the towers' size already."""
    settings = {"resize": resize, "rotate_180": resize == "lanczos3"}
    usual, there = (policy_of(folders, "oft", settings=settings, reuse_vision=False) for _ in range(2))
    there._eyes._on_gpu = True
    asked = [observation(0), observation(1), observation(2)]
    small_one = encode_image(np.full((28, 28, 3), 90, np.uint8), camera="wrist", seq=1, t_capture_ns=0)
    asked[1] = msgspec.structs.replace(asked[1], images=asked[1].images | {"wrist": small_one})
    for one, other in zip(usual.act_batch(asked), there.act_batch(asked), strict=True):
        assert isinstance(one, ActionChunk)
        assert isinstance(other, ActionChunk)
        assert alike(one, other)


def test_what_will_be_over_on_arrival_is_what_was_committed(folders: dict[str, Path]) -> None:
    policy = policy_of(folders, "oft")
    free = policy.act(observation(0))
    going = np.full((5, 7), 0.01)
    told = msgspec.structs.replace(observation(0), committed=going, frozen_steps=3)
    chunk = policy.act(told)
    np.testing.assert_array_equal(chunk.actions[:3], going[:3])
    assert len({tuple(row) for row in chunk.bins[:3].tolist()}) == 1  # a log shows what is executed
    np.testing.assert_array_equal(chunk.bins[5:], free.bins[5:])
    assert chunk.policy_tokens == free.policy_tokens == []  # its head says numbers
    # An action that the policy said itself lies in the bin that it said.
    said = policy.act(msgspec.structs.replace(told, committed=free.actions, frozen_steps=len(free.actions)))
    assert np.abs(said.bins.astype(int) - free.bins)[:, :6].max() <= 1
    np.testing.assert_allclose(chunk.actions[6:], free.actions[6:], atol=1e-9)
    # Where it leads is where it would have led.
    np.testing.assert_allclose(chunk.actions[:, :3].sum(0), free.actions[:, :3].sum(0), atol=1e-9)


@pytest.mark.parametrize(
    ("committed", "frozen", "complaint"),
    [
        (np.zeros((3, 6)), 1, r"shape \(3, 6\)"),
        (np.zeros(7), 1, r"shape \(7,\)"),
        (np.full((3, 7), np.nan), 1, "not finite"),
        (np.zeros((3, 7)), 4, r"within 0\.\.3"),
        (np.zeros((3, 7)), -1, r"within 0\.\.3"),
    ],
)
def test_commitments_that_make_no_sense_are_refused(
    folders: dict[str, Path], committed: np.ndarray[Any, Any], frozen: int, complaint: str
) -> None:
    policy = policy_of(folders, "oft")
    told = msgspec.structs.replace(observation(0), committed=committed, frozen_steps=frozen)
    with pytest.raises(PolicyError, match=complaint):
        policy.act(told)
