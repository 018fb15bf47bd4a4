"""Where a model runs and in what numbers, from what settings say to what torch has."""

from __future__ import annotations

import torch

from reflexarc.configs.base import Config
from reflexarc.configs.errors import PolicyError
from reflexarc.configs.placement import Device, Placement, Precision


def place(device: Device, precision: Precision) -> tuple[torch.device, torch.dtype]:
    """The device, and the dtype of the matrix products. Raises PolicyError if this machine has no such thing."""
    cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise PolicyError("device cuda: torch finds no GPU; set `device: cpu` or leave it out")
    if precision == "auto":
        precision = "bfloat16" if cuda else "float32"
    if cuda and precision == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise PolicyError(
            f"precision bfloat16: {torch.cuda.get_device_name()} has none; set `precision: float32`"
        )
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return torch.device("cuda" if cuda else "cpu"), dtype


def placed[T: Config](settings: T, said: Placement) -> T:
    """The settings, with what a command said in place of their own."""
    return settings.model_copy(update={name: value for name, value in said if value is not None})


def wait(device: torch.device) -> None:
    """Until the device has done what this thread gave it: so that the time of each stage is its own.

    Not the whole device: that would break the recording of a graph in another thread (`engine/graphs.py`).
    """
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
