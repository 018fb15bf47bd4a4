"""Losses that several heads share."""

from __future__ import annotations

import torch
from torch import Tensor

from reflexarc.configs.policy import ACTION_BINS
from reflexarc.vla.labels import Labels


def smoothed_cross_entropy(logits: Tensor, bins: Tensor, sigma: float) -> Tensor:
    """Cross entropy (...) of logits (..., 256) with a Gaussian of `sigma` bins around the true bin (...).

    Neighbouring bins are nearly as good as the true one, and a model that is told so learns from fewer examples.
    Sigma 0 is plain cross entropy.
    """
    chances = logits.float().log_softmax(-1)
    if sigma == 0:
        return -chances.gather(-1, bins[..., None])[..., 0]
    return -(_soft_targets(sigma, logits.device)[bins] * chances).sum(-1)


def binned_loss(logits: Tensor, labels: Labels, fixed: Tensor) -> Tensor:
    """Mean loss () of logits (B, H, D, 256) over the dimensions that vary. fixed: (D,) -1 where one does."""
    varies = torch.nonzero(fixed < 0)[:, 0]
    each = smoothed_cross_entropy(logits[:, :, varies], labels.bins[:, :, varies], labels.smoothing)
    return masked_mean(each.mean(-1), labels.mask)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of `values` where `mask`, of the same shape; 0 where there is nothing."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp_min(1)


def _soft_targets(sigma: float, device: torch.device) -> Tensor:
    """(256, 256): row b is the target of true bin b."""
    bins = torch.arange(ACTION_BINS, device=device, dtype=torch.float32)
    weight = torch.exp(-0.5 * ((bins[None, :] - bins[:, None]) / sigma).square())
    return weight / weight.sum(-1, keepdim=True)
