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

    def require(self, *, layers: int, heads: int, head_width: int) -> None:
        """Raises PolicyError if a decoder of these sizes cannot use it."""
        sizes = {"layers": layers, "heads": heads, "head_width": head_width}
        held = dict(zip(sizes, (self.keys.shape[i] for i in (0, 2, 4)), strict=True))
        for name, needed in sizes.items():
            if held[name] != needed:
                raise PolicyError(
                    f"cache: {name} is {held[name]}, this decoder has {needed}; they must be equal"
                )

    def put(self, layer: int, start: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write (B, heads, T, head_width) from position `start`; returns all keys and values up to there, views.

        Where a gradient flows through them nothing is written, because memory that changes cannot be differentiated:
        what is returned is then a copy.
        """
        end = start + key.shape[2]
        keys, values = self.keys[layer, : len(key)], self.values[layer, : len(key)]
        if key.requires_grad:
            return torch.cat([keys[:, :, :start], key], dim=2), torch.cat(
                [values[:, :, :start], value], dim=2
            )
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
