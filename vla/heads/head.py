"""What every action head offers, and the table of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

from torch import Tensor, nn

from reflexarc.configs.policy import HeadConfig
from reflexarc.vla.commitment import Commitment
from reflexarc.vla.heads.autoregressive import AutoregressiveHead
from reflexarc.vla.heads.fast import FastHead
from reflexarc.vla.heads.flow import FlowHead
from reflexarc.vla.heads.latent import LatentHead
from reflexarc.vla.heads.parallel import ParallelHead
from reflexarc.vla.heads.regression import RegressionHead
from reflexarc.vla.heads.shape import HeadShape
from reflexarc.vla.heads.words import WordsHead
from reflexarc.vla.labels import Answer, Labels
from reflexarc.vla.trunk import Prefix, Trunk


class Head(Protocol):
    """From a prefix to a chunk. plan: (B, width), what every action starts from. The prefix's cache is used up."""

    def loss(self, trunk: Trunk, prefix: Prefix, plan: Tensor, labels: Labels) -> Tensor:
        """For training: the mean loss () over the actions that are labels."""

    def decode(
        self, trunk: Trunk, prefix: Prefix, plan: Tensor, committed: Commitment | None = None
    ) -> Answer:
        """For acting. committed: what the arm goes on with meanwhile; the answer continues it where the head can."""


HEADS: dict[str, Callable[[Any, HeadShape], nn.Module]] = {
    "parallel": ParallelHead,
    "autoregressive": AutoregressiveHead,
    "regression": RegressionHead,
    "flow": FlowHead,
    "fast": FastHead,
    "words": WordsHead,
    "latent": LatentHead,
}


def build_head(config: HeadConfig, shape: HeadShape) -> Head:
    """The head that `config.kind` names, with random weights."""
    return cast(Head, HEADS[config.kind](config, shape))
