"""Where a policy's model runs, and in what numbers: spelled the same in every settings file and on the command line."""

from __future__ import annotations

from typing import Literal

from reflexarc.configs.base import Config

Device = Literal["auto", "cpu", "cuda"]
"""`auto`: a GPU if there is one."""

Precision = Literal["auto", "float32", "bfloat16"]
"""Of the matrix products. `auto`: bfloat16 on a GPU, float32 on the CPU."""


class Placement(Config):
    """What a command says of it; what is not said is as the policy's own settings say."""

    device: Device | None = None
    """Where the model runs; `auto`: on a GPU if there is one."""
    precision: Precision | None = None
    """Of its matrix products; `auto`: bfloat16 on a GPU, float32 on the CPU."""


class OwnSettings(Config):
    """A checkpoint of Reflexarc's own: `reflexarc.yaml` in its folder, or a file elsewhere that names the folder.

    checkpoint: the folder, where these settings stand elsewhere. device: the CPU unless told otherwise, so that an
    evaluation gives the same figures on a machine with a GPU and on one without.
    """

    checkpoint: str = ""
    device: Device = "cpu"
    precision: Precision = "auto"
