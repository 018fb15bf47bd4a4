"""A matrix of weights and its product with activations, in full or in fewer bits, by torch's own kernels.

One token at a time a product costs what reading its weights costs: half or a quarter of the bytes is up to so many
times the speed. Many tokens at a time cost arithmetic, and weights are brought back to full precision for them.

- `int8`: one scale a row, symmetric. `int4`: a scale and an offset for each group of inputs. Weights only.
- `fp8`: e4m3 for weights (a scale a matrix) and activations (a scale a product), multiplied as such; GPUs from Ada on.

The kernels are those that torchao calls; its tensor subclasses, tried without `torch.compile` on a processor, took
twenty times the kernel's own time at one token (41 ms against 1.9 ms for 4096 x 4096), so they are not used.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from reflexarc.configs.engine import WeightBits
from reflexarc.configs.errors import PolicyError

FEW = 2
"""Rows of activations up to which reading the weights is what takes the time, as measured on a processor."""

FP8_ROWS = 16
"""Rows of a product in fp8 must be a multiple of this (cuBLASLt)."""


class Product(Protocol):
    """A matrix (outputs, inputs)."""

    def __call__(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs) in the dtype of x."""

    @property
    def bytes(self) -> int:
        """What it takes in memory."""


class Full:
    """As it is."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        """See `Product`."""
        return F.linear(x, self.weight)

    @property
    def bytes(self) -> int:
        """See `Product`."""
        return self.weight.numel() * self.weight.element_size()


class Int8:
    """Eight bits, one scale a row. On a processor few rows are multiplied in bfloat16, by its kernel."""

    def __init__(self, weight: Tensor) -> None:
        scale = weight.float().abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        self._whole = (weight.float() / scale).round().to(torch.int8)
        self._scale = scale[:, 0].to(torch.bfloat16)

    def __call__(self, x: Tensor) -> Tensor:
        """See `Product`."""
        rows = x.flatten(0, -2)
        if len(rows) <= FEW and x.device.type == "cpu":
            out = torch._weight_int8pack_mm(rows.to(torch.bfloat16), self._whole, self._scale)
            return out.to(x.dtype).view(*x.shape[:-1], -1)
        return F.linear(x, self._whole.to(x.dtype)) * self._scale.to(x.dtype)

    @property
    def bytes(self) -> int:
        """See `Product`."""
        return self._whole.numel() + 2 * self._scale.numel()


class Int4:
    """Four bits; of each `group` inputs of a row a scale and a zero. One kernel on a processor, one on a GPU."""

    def __init__(self, weight: Tensor, group: int) -> None:
        outputs, inputs = weight.shape
        if inputs % group:
            raise PolicyError(
                f"int4: a matrix of {inputs} inputs is no whole number of groups of {group}; set `group`"
            )
        grouped = weight.float().view(outputs, -1, group)
        low, high = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
        scale = (high - low).clamp_min(1e-8) / 15
        whole = ((grouped - low) / scale).round().clamp(0, 15).to(torch.int32).view(outputs, inputs)
        zero = low + 8 * scale  # the kernels take (w - 8)·scale + zero
        self._group = group
        self._scale = torch.cat([scale, zero], dim=-1).transpose(0, 1).contiguous().to(torch.bfloat16)
        self._cpu = weight.device.type == "cpu"
        if self._cpu:
            self._packed = torch._convert_weight_to_int4pack_for_cpu(whole, 1)
        else:
            pairs = (whole[:, ::2] << 4 | whole[:, 1::2]).to(torch.uint8)
            self._packed = torch._convert_weight_to_int4pack(pairs, 8)

    def __call__(self, x: Tensor) -> Tensor:
        """See `Product`."""
        rows = x.flatten(0, -2).to(torch.bfloat16)
        multiply = torch._weight_int4pack_mm_for_cpu if self._cpu else torch._weight_int4pack_mm
        out: Tensor = multiply(rows, self._packed, self._group, self._scale)
        return out.to(x.dtype).view(*x.shape[:-1], -1)

    @property
    def bytes(self) -> int:
        """See `Product`."""
        return self._packed.numel() * self._packed.element_size() + 2 * self._scale.numel()


class Fp8:
    """Eight bits of floating point on both sides of the product."""

    def __init__(self, weight: Tensor) -> None:
        self._most = torch.finfo(torch.float8_e4m3fn).max
        self._scale = (weight.float().abs().amax() / self._most).clamp_min(1e-12)
        self._whole = (weight.float() / self._scale).to(torch.float8_e4m3fn)

    def __call__(self, x: Tensor) -> Tensor:
        """See `Product`."""
        rows = x.flatten(0, -2)
        count = len(rows)
        rows = F.pad(rows, (0, 0, 0, -count % FP8_ROWS))
        scale = (rows.float().abs().amax() / self._most).clamp_min(1e-12)
        out: Tensor = torch._scaled_mm(
            (rows / scale).to(torch.float8_e4m3fn),
            self._whole.T,
            scale_a=scale,
            scale_b=self._scale,
            out_dtype=torch.bfloat16,
        )
        return out[:count].to(x.dtype).view(*x.shape[:-1], -1)

    @property
    def bytes(self) -> int:
        """See `Product`."""
        return self._whole.numel() + 4


def product(weight: Tensor, bits: WeightBits, group: int = 128) -> Product:
    """`weight` (outputs, inputs) in that form. Raises PolicyError if int4's groups do not fit."""
    if bits == "int8":
        return Int8(weight)
    if bits == "int4":
        return Int4(weight, group)
    return Fp8(weight) if bits == "fp8" else Full(weight)
