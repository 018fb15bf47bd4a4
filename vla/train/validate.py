"""Figures on held-out episodes, in bins and in the units of the world."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from reflexarc.vla.actions import ActionCodec
from reflexarc.vla.loss import masked_mean
from reflexarc.vla.model import VlaModel
from reflexarc.vla.train.batch import Batch

NEAR_BINS = 2
"""An action this many bins off still counts as right for the accuracy."""


@torch.inference_mode()
def validate(model: VlaModel, batches: Iterable[Batch], codec: ActionCodec) -> dict[str, Any]:
    """loss; `accuracy` and `error` by dimension (actions within 2 bins; mean absolute error in the dimension's unit);
    `focus_cm` of thing and destination; `first_action_error`, the same for the first action alone. Of a planner:
    the accuracy of its subtasks, the share that is said to the word; it has no errors of actions."""
    model.eval()
    grid = codec.grid
    losses, hits, errors, masks, focus, known = [], [], [], [], [], []
    exact: list[torch.Tensor] = []
    for batch in batches:
        loss, focus_logits = model(batch.inputs, batch.labels)
        losses.append((float(loss), int(batch.labels.mask.sum())))
        answer = model.act(batch.inputs)
        if answer.words is not None and batch.labels.words is not None:
            exact.append((answer.words == batch.labels.words).all(1).float().cpu())
            continue
        said = codec.read(answer)
        hits.append((torch.from_numpy(said.bins) - batch.labels.bins.cpu()).abs() <= NEAR_BINS)
        errors.append((torch.from_numpy(said.actions).float() - batch.actions.cpu()).abs())
        masks.append(batch.labels.mask.cpu())
        if model.focus is not None and focus_logits is not None:
            mean, _ = model.focus.points(focus_logits)
            focus.append((mean - batch.focus).norm(dim=-1).cpu())
            known.append(batch.focus_mask.cpu())
    if not losses:
        return {}
    figures: dict[str, Any] = {
        "loss": sum(loss * count for loss, count in losses) / max(1, sum(count for _, count in losses))
    }
    if exact:
        return figures | {"accuracy": {"subtask": float(torch.cat(exact).mean())}, "error": {}}
    mask = torch.cat(masks)
    hit, error = torch.cat(hits).float(), torch.cat(errors)
    by_dim = [(grid.names[dim], hit[..., dim], error[..., dim]) for dim in np.flatnonzero(grid.varies)]
    figures["accuracy"] = {name: float(masked_mean(right, mask)) for name, right, _ in by_dim}
    figures["error"] = {name: float(masked_mean(wrong, mask)) for name, _, wrong in by_dim}
    figures["first_action_error"] = {
        name: float(masked_mean(wrong[:, 0], mask[:, 0])) for name, _, wrong in by_dim
    }
    if focus:
        distance, sure = torch.cat(focus), torch.cat(known)
        figures["focus_cm"] = [
            100.0 * float(masked_mean(distance[:, point], sure[:, point])) for point in range(2)
        ]
    return figures
