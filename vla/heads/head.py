"""What every action head offers, and the table of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

from torch import Tensor, nn

from reflexarc.vla.heads.autoregressive import AutoregressiveHead
from reflexarc.vla.heads.parallel import ParallelHead
from reflexarc.vla.heads.readout import read_bins, read_tokens
from reflexarc.vla.trunk import Prefix, Trunk

__all__ = ["HEADS", "Head", "build_head", "read_bins", "read_tokens"]


class Head(Protocol):
    """Emits H·D action tokens after a prefix."""

    def __call__(self, trunk: Trunk, prefix: Prefix, plan: Tensor, bins: Tensor) -> Tensor:
        """For training: logits (B, H, D, 256) where the true bins are (B, H, D)."""

    def decode(self, trunk: Trunk, prefix: Prefix, plan: Tensor, readout: str) -> Tensor:
        """For acting: bins (B, H, D) int64. The prefix's cache is used up."""


HEADS: dict[str, Callable[[int, int, Tensor], nn.Module]] = {
    "parallel": ParallelHead,
    "autoregressive": AutoregressiveHead,
}


def build_head(kind: str, width: int, horizon: int, fixed: Tensor) -> Head:
    """The head of that kind, with random weights. fixed: (D,) the bin of a dimension that never varies, else -1."""
    return cast(Head, HEADS[kind](width, horizon, fixed))
