"""From a distribution over bins to one bin."""

from __future__ import annotations

import torch
from torch import Tensor


def read_bins(logits: Tensor, readout: str) -> Tensor:
    """(..., 256) logits to (...) int64 bins: the most likely (`mode`), or the one that halves the mass (`median`)."""
    if readout == "mode":
        return logits.argmax(-1)
    below = logits.float().softmax(-1).cumsum(-1)
    return (below < 0.5).sum(-1).clamp_max(logits.shape[-1] - 1)


def read_tokens(logits: Tensor, readout: str, fixed: Tensor) -> Tensor:
    """As `read_bins`, but a dimension that never varied has its one bin. fixed: (...) that bin, -1 where it varies."""
    return torch.where(fixed >= 0, fixed, read_bins(logits, readout))
