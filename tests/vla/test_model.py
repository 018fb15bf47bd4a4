"""The model's parts: what they may depend on, and that every part learns."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts.toy_policy import HORIZON, SIZE, toy_checkpoint, toy_config, toy_data
from reflexarc.configs.policy import PolicyConfig
from reflexarc.vla.checkpoint import build_model
from reflexarc.vla.heads import read_bins
from reflexarc.vla.inputs import Inputs
from reflexarc.vla.model import VlaModel
from reflexarc.vla.train.batch import Batch, Batches

BINNED = ("parallel", "autoregressive")


def toy_batch(rows: int = 6) -> tuple[Batch, Batches]:
    checkpoint, data = toy_checkpoint(), toy_data()
    batches = Batches(
        data,
        checkpoint.config.model,
        actions=checkpoint.codec,
        words=checkpoint.words,
        stats=checkpoint.stats,
    )
    return batches.make(np.arange(0, 4 * rows, 4)), batches


def model_of(config: PolicyConfig) -> VlaModel:
    base = toy_checkpoint()
    torch.manual_seed(0)
    return build_model(config, base.spec, base.actions, base.words, base.stats).eval()


def action_logits(model: VlaModel, inputs: Inputs, bins: Tensor) -> Tensor:
    """(B, H, D, 256) of a binned head, given the true bins (B, H, D)."""
    tokens, keep = model.see(inputs)
    prefix, plan, _ = model.think(inputs, tokens, keep)
    given = (bins,) if model.config.head.kind == "autoregressive" else ()
    logits: Tensor = model.head(model.trunk, prefix, plan, *given)  # type: ignore[operator]
    return logits


@pytest.mark.parametrize("head", BINNED)
def test_logits_are_256_for_each_dimension_of_each_action(head: str) -> None:
    batch, _ = toy_batch()
    model = model_of(toy_config(head))
    assert action_logits(model, batch.inputs, batch.labels.bins).shape == (6, HORIZON, 7, 256)
    loss, focus = model(batch.inputs, batch.labels)
    assert loss.shape == ()
    assert focus is not None
    assert focus.shape == (6, 2, 3, 256)


@pytest.mark.parametrize("head", BINNED)
def test_acting_reads_what_training_predicts(head: str) -> None:
    """Decoding token by token with a cache gives the tokens that one teacher-forced pass predicts for them."""
    batch, _ = toy_batch()
    model = model_of(toy_config(head))
    bins = model.act(batch.inputs).bins
    assert bins is not None
    logits = action_logits(model, batch.inputs, bins.clone())
    varies = torch.from_numpy(toy_checkpoint().actions.varies)
    assert torch.equal(read_bins(logits, "median")[..., varies], bins[..., varies])
    assert not bins[..., ~varies].any()


def test_an_autoregressive_token_does_not_see_later_ones() -> None:
    batch, _ = toy_batch()
    model = model_of(toy_config("autoregressive"))
    before = action_logits(model, batch.inputs, batch.labels.bins)
    changed = batch.labels.bins.clone()
    changed[:, 2, 3] = (changed[:, 2, 3] + 100) % 256
    after = action_logits(model, batch.inputs, changed)
    different = (before - after).abs().amax(dim=(0, 3)).flatten() > 1e-5
    assert different.nonzero().min() == 2 * 7 + 4


def test_padding_and_company_in_a_batch_change_nothing() -> None:
    """A row with a short instruction gives the same logits alone and beside a longer one."""
    checkpoint = toy_checkpoint()
    batch, _ = toy_batch(3)
    model = checkpoint.model.eval()
    words = batch.inputs.words
    short = words[:1, :4]
    padded = torch.cat([short, torch.zeros(1, words.shape[1] - 4, dtype=torch.int64)], dim=1)
    together = dataclasses.replace(batch.inputs, words=torch.cat([padded, words[1:]]))
    alone = Inputs(batch.inputs.images[:1], short, batch.inputs.proprio[:1], batch.inputs.tcp[:1])
    first = action_logits(model, together, batch.labels.bins)
    second = action_logits(model, alone, batch.labels.bins[:1])
    assert torch.allclose(first[:1], second, atol=1e-4)


@pytest.mark.parametrize("what", ["images", "words", "proprio", "tcp", "order of words", "order of cameras"])
def test_the_action_depends_on_everything_that_is_given(what: str) -> None:
    batch, _ = toy_batch()
    model = model_of(toy_config())
    model.focus.expand.weight.data.mul_(50)  # type: ignore[union-attr]
    given = batch.inputs
    images = given.images + 0.3 * torch.rand(given.images.shape, generator=torch.Generator().manual_seed(1))
    given = dataclasses.replace(given, images=images)
    changed = {
        "images": {"images": images.flip(-1)},
        "words": {"words": torch.where(given.words == given.words.max(), 5, given.words)},
        "proprio": {"proprio": given.proprio + 1},
        "tcp": {"tcp": given.tcp + 0.1},
        "order of words": {"words": torch.cat([given.words[:, :1], given.words[:, 1:].flip(1)], dim=1)},
        "order of cameras": {"images": images.flip(1)},
    }[what]
    before = action_logits(model, given, batch.labels.bins)
    after = action_logits(model, dataclasses.replace(given, **changed), batch.labels.bins)
    assert (before - after).abs().max() > 1e-5


@pytest.mark.parametrize("vision", [{"kind": "siglip"}, {"kind": "dinov2"}, {"kind": "conv"}])
@pytest.mark.parametrize("connector", ["resampler", "linear", "mlp"])
@pytest.mark.parametrize("focus", [True, False])
def test_every_part_is_chosen_by_configuration_and_learns(
    vision: dict[str, object], connector: str, focus: bool
) -> None:
    sizes = {"width": 16} if vision["kind"] == "conv" else {"width": 24, "layers": 1, "heads": 2, "patch": 8}
    values = toy_config().model_dump(mode="json")
    values["model"] |= {"vision": vision | sizes, "connector": {"kind": connector}, "focus": focus}
    batch, _ = toy_batch(2)
    model = model_of(PolicyConfig.model_validate(values)).train()
    for name, each in model.named_parameters():
        if ".film." in name:  # it starts at zero: nothing would flow through it yet
            torch.nn.init.normal_(each, std=0.1)
    loss, focus_logits = model(batch.inputs, batch.labels)
    assert (focus_logits is None) is not focus
    total = loss + (0 if focus_logits is None else focus_logits.logsumexp(-1).sum())
    total.backward()
    idle = [
        name
        for name, each in model.named_parameters()
        if (each.grad is None or not each.grad.abs().sum() > 0) and "mask_token" not in name
    ]
    unconditioned = {name for name in idle if name.startswith("summary.")}
    if vision["kind"] != "conv" and connector != "resampler":
        assert set(idle) == unconditioned  # nothing there that listens to the summary
    else:
        assert not idle


def test_the_median_is_steadier_than_the_mode() -> None:
    chances = torch.tensor([0.30, 0.25, 0.25, 0.2] + [0.0] * 252)
    assert int(read_bins(chances.log(), "mode")) == 0
    assert int(read_bins(chances.log(), "median")) == 1
    sure = torch.full((3, 256), -50.0)
    sure[0, 0] = sure[1, 255] = sure[2, 77] = 0.0
    assert read_bins(sure, "median").tolist() == [0, 255, 77]


def test_image_size_reaches_the_tower() -> None:
    assert model_of(toy_config()).tower.grid == (SIZE // 4, SIZE // 4)
