"""Figures on held-out episodes, in tokens and in the units of the world."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from reflexarc.vla.heads import read_tokens
from reflexarc.vla.model import VlaModel
from reflexarc.vla.tokenizers import UniformTokenizer
from reflexarc.vla.train.batch import Batch
from reflexarc.vla.train.loss import masked_mean, smoothed_cross_entropy

NEAR_BINS = 2
"""A token this many bins off still counts as right for the accuracy."""


@torch.inference_mode()
def validate(
    model: VlaModel, batches: Iterable[Batch], actions: UniformTokenizer, smoothing: float
) -> dict[str, Any]:
    """loss; `accuracy` and `error` by dimension (tokens within 2 bins; mean absolute error in the dimension's unit);
    `focus_cm` of thing and destination; `first_action_error`, the same for the first action alone."""
    model.eval()
    centers = torch.from_numpy(actions.centers).float()
    dims = np.flatnonzero(actions.varies)
    losses, hits, errors, masks, focus, known = [], [], [], [], [], []
    fixed = torch.from_numpy(actions.fixed_bins)
    for batch in batches:
        logits, focus_logits = model(batch.inputs, batch.bins)
        bins = read_tokens(logits, model.config.head.readout, fixed.to(logits.device))
        loss = smoothed_cross_entropy(logits, batch.bins, smoothing)
        losses.append(loss[:, :, torch.from_numpy(dims)].mean(-1).cpu())
        hits.append(((bins - batch.bins).abs() <= NEAR_BINS).cpu())
        each = torch.arange(len(centers))
        errors.append((centers[each, bins.cpu()] - batch.actions.cpu()).abs())
        masks.append(batch.mask.cpu())
        if model.focus is not None and focus_logits is not None:
            mean, _ = model.focus.points(focus_logits)
            focus.append((mean - batch.focus).norm(dim=-1).cpu())
            known.append(batch.focus_mask.cpu())
    if not masks:
        return {}
    mask = torch.cat(masks)
    hit, error = torch.cat(hits).float(), torch.cat(errors)
    figures: dict[str, Any] = {"loss": float(masked_mean(torch.cat(losses), mask))}
    names = [actions.names[dim] for dim in dims]
    by_dim = [(name, hit[..., dim], error[..., dim]) for name, dim in zip(names, dims, strict=True)]
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
