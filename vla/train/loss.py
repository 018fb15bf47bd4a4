"""Losses and figures of merit over binned tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from reflexarc.configs.policy import ACTION_BINS


def smoothed_cross_entropy(logits: Tensor, bins: Tensor, sigma: float) -> Tensor:
    """Cross entropy (...) of logits (..., 256) with a Gaussian of `sigma` bins around the true bin (...).

    Neighbouring bins are nearly as good as the true one, and a model that is told so learns from fewer examples.
    Sigma 0 is plain cross entropy.
    """
    chances = logits.float().log_softmax(-1)
    if sigma == 0:
        return -chances.gather(-1, bins[..., None])[..., 0]
    return -(_soft_targets(sigma, logits.device)[bins] * chances).sum(-1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of `values` where `mask`, of the same shape; 0 where there is nothing."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp_min(1)


def _soft_targets(sigma: float, device: torch.device) -> Tensor:
    """(256, 256): row b is the target of true bin b."""
    bins = torch.arange(ACTION_BINS, device=device, dtype=torch.float32)
    weight = torch.exp(-0.5 * ((bins[None, :] - bins[:, None]) / sigma).square())
    return weight / weight.sum(-1, keepdim=True)
