"""Keys and values in memory that never moves, so that a pass can be recorded as a graph and replayed."""

from __future__ import annotations

import torch
from torch import Tensor

from reflexarc.configs.errors import PolicyError


class StaticCache:
    """keys, values: (layers, B, heads, max_length, head_width). length: how many positions are filled."""

    def __init__(
        self,
        layers: int,
        batch: int,
        heads: int,
        max_length: int,
        head_width: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (layers, batch, heads, max_length, head_width)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.length = 0

    @property
    def max_length(self) -> int:
        """Positions there is room for."""
        return self.keys.shape[3]

    def put(self, layer: int, start: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write (B, heads, T, head_width) from position `start`; returns all keys and values up to there, views."""
        end = start + key.shape[2]
        keys, values = self.keys[layer, : len(key)], self.values[layer, : len(key)]
        keys[:, :, start:end] = key
        values[:, :, start:end] = value
        return keys[:, :, :end], values[:, :, :end]

    def reserve(self, start: int, count: int) -> int:
        """The length after `count` more positions. Raises PolicyError if there is no room for them."""
        if start + count > self.max_length:
            raise PolicyError(
                f"a sequence of {start + count} positions does not fit the cache of {self.max_length}; "
                f"raise max_length"
            )
        return start + count
