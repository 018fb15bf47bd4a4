"""Our π0 gives what lerobot's gives, whatever it is told; a guided chunk goes on from what is committed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lerobot.policies.factory import get_policy_class, make_policy_config
from torch import Tensor

from contracts.lerobot_folders import SIZE, features, small_sizes
from reflexarc.vla.adapters.pi0 import accelerate, parts_of
from reflexarc.vla.engine.guidance import Guide, euler, guidance_weight, guided, soft_mask
from reflexarc.vla.engine.pi0 import Pi0Engine, time_features

HORIZON, ACTIONS, PROMPT = 20, 32, 16

Inputs = tuple[list[Tensor], list[Tensor], Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    options = {"chunk_size": HORIZON, "n_action_steps": HORIZON, "image_resolution": (SIZE, SIZE)}
    with small_sizes():
        config = make_policy_config("pi0", device="cpu", push_to_hub=False, **features(), **options)
        return get_policy_class("pi0")(config).eval().model


def inputs(words: int, *, batch: int = 1) -> Inputs:
    """Two views, `words` words in a padded prompt, a state and noise."""
    images = [torch.rand(batch, 3, SIZE, SIZE) * 2 - 1 for _ in range(2)]
    ids, real = torch.randint(1, 100, (batch, PROMPT)), torch.zeros(batch, PROMPT, dtype=torch.bool)
    real[:, :words] = True
    there = [torch.ones(batch, dtype=torch.bool)] * 2
    return images, there, ids, real, torch.randn(batch, 32), torch.randn(batch, HORIZON, ACTIONS)


@torch.inference_mode()
def test_the_chunk_is_lerobots(model: Any) -> None:
    cases = [inputs(5), inputs(16), inputs(9, batch=2), inputs(3)]
    absent = inputs(7)
    absent[1][1] = torch.zeros(1, dtype=torch.bool)
    uneven = inputs(6, batch=2)
    uneven[3][1, 4:] = False  # told different things at once: lerobot's own code runs
    cases += [absent, uneven]
    expected = [model.sample_actions(*case) for case in cases]
    before = model.sample_actions
    accelerate(model)
    try:
        for case, there in zip(cases, expected, strict=True):
            torch.testing.assert_close(model.sample_actions(*case), there, rtol=0, atol=2e-5)
    finally:
        model.sample_actions = before
    assert not torch.allclose(expected[0], expected[1], atol=1e-2)


@torch.inference_mode()
def test_a_language_model_in_fp8_changes_a_chunk_little(model: Any) -> None:
    images, _, ids, _, state, noise = inputs(6)
    full, small = (Pi0Engine(parts_of(model), horizon=HORIZON, weights=each) for each in ("full", "fp8"))  # type: ignore[arg-type]
    chunks = []
    for engine in (full, small):
        tokens = engine.see(torch.stack(images, dim=1))
        chunks.append(engine.act(tokens, ids[:, :6], state, noise))
        longer = engine.act(tokens.repeat(1, 20, 1), ids[:, :6], state, noise)  # more room: the same weights
        assert longer.shape == chunks[-1].shape
    off = float((chunks[0] - chunks[1]).abs().mean() / chunks[0].abs().mean())
    assert 0.0 < off < 0.05


def test_the_times_features_are_lerobots() -> None:
    from lerobot.policies.common.vla_utils import create_sinusoidal_pos_embedding

    times = [1.0, 0.7, 0.05]
    expected = create_sinusoidal_pos_embedding(torch.tensor(times), 64, 4e-3, 4.0, device=torch.device("cpu"))
    torch.testing.assert_close(time_features(times, 64, 4e-3, 4.0), expected.float(), atol=2e-4, rtol=0)


def test_a_guided_chunk_goes_on_from_the_committed_actions(model: Any) -> None:
    images, _, ids, _, state, noise = inputs(6)
    engine = Pi0Engine(parts_of(model), horizon=HORIZON)
    tokens = engine.see(torch.stack(images, dim=1))
    free = engine.act(tokens, ids[:, :6], state, noise)
    committed = free + 0.4 * torch.randn(1, 1, ACTIONS)
    frozen, overlap = 4, 12
    weights = torch.tensor(soft_mask(frozen, overlap, HORIZON)).view(1, HORIZON, 1)
    chunk = engine.act(tokens, ids[:, :6], state, noise, Guide(committed, weights))

    def miss(actions: Tensor, steps: slice) -> float:
        return float((actions - committed)[:, steps].abs().mean())

    assert miss(chunk, slice(0, frozen)) < 0.15 * miss(free, slice(0, frozen))
    assert miss(chunk, slice(frozen, 8)) < miss(free, slice(frozen, 8))
    # Beyond the overlap nothing pulls: it stays nearer to what was free than to what was committed.
    assert float((chunk - free)[:, overlap:].abs().mean()) < 0.3 * miss(free, slice(overlap, HORIZON))
    unguided = engine.act(tokens, ids[:, :6], state, noise, Guide(committed, torch.zeros_like(weights)))
    torch.testing.assert_close(unguided, free, rtol=0, atol=1e-5)


def linear(matrix: Tensor) -> Callable[[Tensor, int], Tensor]:
    return lambda x, step: x @ matrix


def test_guidance_is_the_papers_formula() -> None:
    """For a linear velocity the gradient can be written down: it is (1 - t·M)."""
    torch.manual_seed(1)
    matrix, here, target = torch.randn(3, 3) * 0.3, torch.randn(1, 5, 3), torch.randn(1, 5, 3)
    weights = torch.rand(1, 5, 1)
    time = 0.6
    flow = here @ matrix
    pull = (target - (here - time * flow)) * weights
    expected = flow - guidance_weight(time) * (pull @ (torch.eye(3) - time * matrix).T)
    got = guided(linear(matrix), here, 0, time, Guide(target, weights))
    torch.testing.assert_close(got, expected)


def test_guidance_weight_is_clipped() -> None:
    assert guidance_weight(1.0) == 5.0  # nothing but noise yet: the formula's is infinite
    assert guidance_weight(0.5) == pytest.approx(2.0)
    assert guidance_weight(0.02) == 5.0
    assert guidance_weight(0.02, most=100.0) == pytest.approx(49.0, rel=1e-2)
    assert guidance_weight(0.02, most=3.0) == 3.0


def test_the_soft_mask_falls_from_frozen_to_free() -> None:
    weights = soft_mask(2, 6, 8)
    assert weights[:2] == [1.0, 1.0]
    assert weights[6:] == [0.0, 0.0]
    assert weights[2:6] == sorted(weights[2:6], reverse=True)
    assert 0.0 < weights[5] < weights[2] < 1.0
    assert soft_mask(9, 4, 5) == [1.0] * 4 + [0.0]  # no more can be frozen than is committed


def test_euler_integrates_a_straight_flow_exactly() -> None:
    noise, goal = torch.randn(1, 4, 2), torch.randn(1, 4, 2)
    torch.testing.assert_close(euler(lambda x, step: noise - goal, noise, 7), goal)
