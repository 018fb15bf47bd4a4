"""What heads promise beyond learning: who sees what, what counts, and that acting says what training predicts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts.toy_policy import HORIZON, TOY_HEADS, toy_checkpoint, toy_data
from reflexarc.configs.policy import PolicyConfig
from reflexarc.vla.checkpoint import Checkpoint, build_model
from reflexarc.vla.heads.flow import FlowHead, draw_times
from reflexarc.vla.model import VlaModel
from reflexarc.vla.train.batch import Batch, Batches
from reflexarc.vla.trunk import Prefix


def batch_of(checkpoint: Checkpoint, rows: int = 4) -> Batch:
    batches = Batches(
        toy_data(),
        checkpoint.config.model,
        actions=checkpoint.codec,
        words=checkpoint.words,
        stats=checkpoint.stats,
    )
    return batches.make(np.arange(0, 4 * rows, 4))


def thought(model: VlaModel, batch: Batch) -> tuple[Prefix, Tensor]:
    tokens, keep = model.see(batch.inputs)
    prefix, plan, _ = model.think(batch.inputs, tokens, keep)
    return prefix, plan


def flow_model(**settings: object) -> tuple[VlaModel, FlowHead, Batch]:
    base = toy_checkpoint("flow")
    values = base.config.model_dump(mode="json")
    values["model"]["head"] |= settings
    torch.manual_seed(1)
    config = PolicyConfig.model_validate(values)
    model = build_model(config, base.spec, base.actions, base.words, base.stats).eval()
    assert isinstance(model.head, FlowHead)
    return model, model.head, batch_of(base)


@pytest.mark.parametrize("head", [kind for kind in TOY_HEADS if kind != "flow"])
def test_actions_that_are_no_labels_do_not_count(head: str) -> None:
    """Beyond the mask labels may be anything; FAST's tokens belong to whole chunks, which count by their share."""
    checkpoint = toy_checkpoint(head)
    model, batch = checkpoint.model.eval(), batch_of(checkpoint)
    labels = batch.labels
    mask = torch.ones_like(labels.mask)
    mask[:2] = False
    other = dataclasses.replace(
        labels,
        mask=mask,
        bins=torch.where(mask[..., None], labels.bins, 255 - labels.bins),
        values=torch.where(mask[..., None], labels.values, -labels.values),
        tokens=torch.where(mask[:, :1], labels.tokens, 0),
    )
    first = model(batch.inputs, dataclasses.replace(labels, mask=mask))[0]
    second = model(batch.inputs, other)[0]
    assert torch.allclose(first, second, atol=1e-6)
    whole = model(batch.inputs, labels)[0]
    assert (first - whole).abs() > 1e-4


def test_the_times_of_training_are_drawn_as_published() -> None:
    torch.manual_seed(0)
    times = (draw_times(200_000) - 0.001) / 0.999
    assert 0 <= times.min() <= times.max() <= 1
    for at in (0.1, 0.3, 0.5, 0.9):  # the distribution of Beta(1.5, 1) is t^1.5
        assert abs(float((times <= at).float().mean()) - at**1.5) < 0.005


@pytest.mark.parametrize("time", ["concat", "adarms"])
@torch.no_grad()
def test_draws_share_their_rows_pass_of_the_trunk(time: str) -> None:
    """Three draws of each row at once give what each draw alone gives, behind the cache of its own row."""
    model, head, batch = flow_model(time=time)
    for parameter in head.expert.parameters():
        parameter.add_(torch.randn(parameter.shape) * 0.05)
    prefix, plan = thought(model, batch)
    draws = 3
    actions = torch.randn(len(plan) * draws, HORIZON, len(head.varies))
    times = torch.rand(len(actions)).tolist()
    together = head.velocity(model.trunk, prefix, plan.repeat_interleave(draws, dim=0), actions, times)
    for draw in range(draws):
        alone = head.velocity(model.trunk, prefix, plan, actions[draw::draws], times[draw::draws])
        assert torch.allclose(together[draw::draws], alone, atol=1e-5)
    swapped = thought(model, dataclasses.replace(batch, inputs=_reversed(batch)))[0]
    other = head.velocity(model.trunk, swapped, plan, actions[::draws], times[::draws])
    assert (other - together[::draws]).abs().max() > 1e-4  # it does look at the cache


def _reversed(batch: Batch) -> object:
    inputs = batch.inputs
    fields = {field.name: getattr(inputs, field.name) for field in dataclasses.fields(inputs)}
    return type(inputs)(**{name: each.flip(0) for name, each in fields.items() if each is not None})


@torch.no_grad()
def test_an_adaptive_expert_begins_as_if_it_were_not_there() -> None:
    """Its gates start at zero: at first the flow depends on actions and plan alone."""
    model, head, batch = flow_model(time="adarms")
    prefix, plan = thought(model, batch)
    swapped = thought(model, dataclasses.replace(batch, inputs=_reversed(batch)))[0]
    actions, times = torch.randn(len(plan), HORIZON, len(head.varies)), torch.rand(len(plan)).tolist()
    assert torch.equal(
        head.velocity(model.trunk, prefix, plan, actions, times),
        head.velocity(model.trunk, swapped, plan, actions, times),
    )


@torch.no_grad()
def test_euler_follows_a_straight_flow_exactly() -> None:
    """Where the velocity is noise minus actions everywhere, ten steps and one end at the actions."""
    for steps in (1, 10):
        model, head, batch = flow_model(steps=steps)
        prefix, plan = thought(model, batch)
        wanted = torch.rand(len(plan), HORIZON, len(head.varies)) - 0.5
        head.velocity = lambda *given: head.noise - wanted  # type: ignore[method-assign] # noqa: B023
        values = head.decode(model.trunk, prefix, plan).values
        assert values is not None
        assert torch.allclose(values[..., head.varies], wanted, atol=1e-5)
        still = [dim for dim in range(7) if dim not in head.varies.tolist()]
        assert not values[..., still].any()


@torch.no_grad()
def test_fast_tokens_are_those_that_one_teacher_forced_pass_predicts() -> None:
    checkpoint = toy_checkpoint("fast")
    model, batch = checkpoint.model.eval(), batch_of(checkpoint)
    head = model.head
    said = head.decode(model.trunk, *thought(model, batch)).tokens
    assert said is not None
    logits = head(model.trunk, *thought(model, batch), said)  # type: ignore[operator]
    best = logits.argmax(-1)
    for row, tokens in zip(best, said, strict=True):
        count = int((tokens >= 0).sum())
        assert torch.equal(row[:count], tokens[:count])
        assert count == len(tokens) or int(row[count]) == head.end  # type: ignore[attr-defined]


def test_scrambled_tokens_are_given_in_training_alone_and_never_wanted() -> None:
    """The loss is of the true tokens, whatever was given; a head that acts is given its own."""
    base = toy_checkpoint("autoregressive")
    values = base.config.model_dump(mode="json")
    values["model"]["head"]["scramble"] = 0.5
    torch.manual_seed(0)
    config = PolicyConfig.model_validate(values)
    model = build_model(config, base.spec, base.actions, base.words, base.stats)
    batch = batch_of(base)
    model.load_state_dict(base.model.state_dict())
    plain = base.model.eval()(batch.inputs, batch.labels)[0]
    assert torch.equal(model.eval()(batch.inputs, batch.labels)[0], plain)
    model.train()
    first, second = (model(batch.inputs, batch.labels)[0] for _ in range(2))
    assert not torch.equal(first, second)
