"""Settings of the inference engine: how a policy's model is run, not what it is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reflexarc.configs.base import Config

WeightBits = Literal["full", "int8", "int4", "fp8"]


class EngineConfig(Config):
    """How the language model of a policy is run.

    graphs: on a GPU, record each pass once and replay it. compile: put passes through `torch.compile` first; minutes
    at the second answer of each shape. weights: of the language model's layers; `int8` and `int4` are weight-only, in
    groups of `group` inputs for int4, `fp8` needs a GPU that multiplies it. visual_share: of the image tokens that go
    on behind layer `prune_layer`, those that the instruction looks at most (FastV, Chen et al. 2024); 1: all.
    reuse_vision: features of a camera whose picture has not changed are not computed again.
    """

    graphs: bool = True
    compile: bool = False
    weights: WeightBits = "full"
    group: int = Field(default=128, ge=32, multiple_of=32)
    visual_share: float = Field(default=1.0, gt=0, le=1)
    prune_layer: int = Field(default=2, ge=1)
    reuse_vision: bool = True


class Pi0EngineConfig(Config):
    """How lerobot's π0 is run.

    graphs, compile: as above. weights: of the language model, which sees all tokens of a chunk's prefix at once:
    `fp8` multiplies in fp8, and needs a GPU that does; weights alone in fewer bits would save nothing there.
    """

    graphs: bool = True
    compile: bool = False
    weights: Literal["full", "fp8"] = "full"
