"""The model's parts: what they may depend on, and that every part learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts.toy_policy import HORIZON, SIZE, TOY_HEADS, toy_checkpoint, toy_config, toy_data
from reflexarc.configs.policy import PolicyConfig
from reflexarc.vla.checkpoint import Checkpoint, build_model, load_checkpoint, save_checkpoint
from reflexarc.vla.heads import read_bins
from reflexarc.vla.inputs import Inputs
from reflexarc.vla.model import VlaModel
from reflexarc.vla.train.batch import Batch, Batches

BINNED = ("parallel", "autoregressive")


def toy_batch(rows: int = 6, checkpoint: Checkpoint | None = None) -> tuple[Batch, Batches]:
    checkpoint, data = checkpoint or toy_checkpoint(), toy_data()
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
    given = batch.inputs
    alone = Inputs(given.images[:1], given.seen[:1], short, given.proprio[:1], given.tcp[:1])
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


VIT = {"width": 24, "layers": 1, "heads": 2, "patch": 8}
TOWERS: dict[str, dict[str, Any]] = {
    "conv": {"kind": "conv", "width": 16},
    "vit": {"kind": "vit", **VIT},
    "siglip": {"kind": "siglip", **VIT},
    "dinov2": {"kind": "dinov2", **VIT},
    "registers": {"kind": "dinov2", "registers": 4, **VIT},
    "fused": {"kind": "fused", "parts": [{"kind": "dinov2", **VIT}, {"kind": "siglip", **VIT, "width": 32}]},
}
CONNECTORS = ("resampler", "perceiver", "qformer", "linear", "mlp", "mlp3", "gated")
PARTS = [
    *({"vision": TOWERS[tower], "connector": {"kind": "resampler"}} for tower in TOWERS),
    *({"connector": {"kind": kind}} for kind in CONNECTORS),
    *({"vision": TOWERS["fused"], "connector": {"kind": kind}, "focus": False} for kind in CONNECTORS),
    *({"language": {"kind": kind}} for kind in ("llama", "gemma", "qwen")),
    {"language": {"kind": "qwen", "key_value_heads": 1}},
    {"state": "text"},
    *({"head": {"kind": kind, **settings}} for kind, settings in TOY_HEADS.items()),
    {"head": {"kind": "flow", "width": 32, "mlp_width": 64, "time": "adarms"}},
    {"head": {"kind": "flow", "width": 32, "mlp_width": 64}, "language": {"key_value_heads": 1}},
]
"""What is changed in the toy's model: every part once, and some together."""
START_AT_ZERO = (".film.", ".gates.", ".modulate.")
"""Nothing would flow through these yet."""


def config_with(parts: dict[str, Any]) -> PolicyConfig:
    """The toy's, with other parts."""
    values = toy_config().model_dump(mode="json")
    language = values["model"]["language"] | parts.get("language", {})
    values["model"] |= parts | {"language": language}
    return PolicyConfig.model_validate(values)


def name_of(parts: dict[str, Any]) -> str:
    return "-".join(
        str(part.get("kind", part)) if isinstance(part, dict) else str(part) for part in parts.values()
    )


@pytest.mark.parametrize("parts", PARTS, ids=name_of)
def test_every_part_is_chosen_by_configuration_learns_and_is_stored(
    parts: dict[str, Any], tmp_path: Path
) -> None:
    config = config_with(parts)
    base = toy_checkpoint(config.model.head.kind)
    batch, _ = toy_batch(2, base)
    torch.manual_seed(0)
    model = build_model(config, base.spec, base.actions, base.words, base.stats, base.fast).train()
    for name, each in model.named_parameters():
        if any(part in name for part in START_AT_ZERO):
            torch.nn.init.normal_(each, std=0.1)
    loss, focus_logits = model(batch.inputs, batch.labels)
    assert (focus_logits is None) is not config.model.focus
    total = loss + (0 if focus_logits is None else focus_logits.logsumexp(-1).sum())
    total.backward()
    idle = [
        name
        for name, each in model.named_parameters()
        if (each.grad is None or not each.grad.abs().sum() > 0) and "mask_token" not in name
    ]
    patches = config.model.connector.kind in ("linear", "mlp", "mlp3", "gated")
    if config.model.vision.kind != "conv" and patches:
        idle = [name for name in idle if not name.startswith("summary.")]  # nothing there listens to it
    assert not idle
    half = {name: each.half().float() for name, each in model.state_dict().items()}
    model.load_state_dict(half)  # as weights are stored
    checkpoint = dataclasses.replace(base, config=config, model=model)
    save_checkpoint(tmp_path / "policy", checkpoint, half, "# toy\n")
    before, after = (
        model.eval().act(batch.inputs),
        load_checkpoint(tmp_path / "policy").model.act(batch.inputs),
    )
    for one, other in zip(dataclasses.astuple(before), dataclasses.astuple(after), strict=True):
        assert one is other is None or torch.equal(one, other)


def test_a_missing_camera_changes_nothing_whatever_its_pixels() -> None:
    """Masked tokens are not looked at, in the sequence or through gates; where all are seen they count."""
    batch, _ = toy_batch(3)
    given = batch.inputs
    seen = given.seen.clone()
    seen[:2, 1] = False
    other = given.images.clone()
    other[:, 1] = other[:, 1].flip(-1) + torch.linspace(0, 1, other.shape[-1])
    for kind in ("resampler", "gated"):
        model = model_of(config_with({"connector": {"kind": kind}}))
        for gate in model.trunk.gates:
            torch.nn.init.ones_(gate.gates)
        first = action_logits(model, dataclasses.replace(given, seen=seen), batch.labels.bins)
        changed = dataclasses.replace(given, seen=seen, images=other)
        second = action_logits(model, changed, batch.labels.bins)
        assert torch.allclose(first[:2], second[:2], atol=1e-6)
        assert (first[2] - second[2]).abs().max() > 1e-5


def test_the_median_is_steadier_than_the_mode() -> None:
    chances = torch.tensor([0.30, 0.25, 0.25, 0.2] + [0.0] * 252)
    assert int(read_bins(chances.log(), "mode")) == 0
    assert int(read_bins(chances.log(), "median")) == 1
    sure = torch.full((3, 256), -50.0)
    sure[0, 0] = sure[1, 255] = sure[2, 77] = 0.0
    assert read_bins(sure, "median").tolist() == [0, 255, 77]


def test_image_size_reaches_the_tower() -> None:
    assert model_of(toy_config()).tower.grid == (SIZE // 4, SIZE // 4)
