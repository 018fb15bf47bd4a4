"""A planner that looks: a vision-language model whose head says words (the high level of π0.5)."""

from __future__ import annotations

import torch

from reflexarc.configs.errors import PolicyError
from reflexarc.vla.checkpoint import Checkpoint
from reflexarc.vla.preprocess import to_inputs
from reflexarc.vla.runtime import VlaPolicy
from reflexarc.wire.messages import Observation


class VlmPlanner:
    """A checkpoint with the head `words`; raises PolicyError for any other."""

    period_s = 1.0

    def __init__(self, checkpoint: Checkpoint) -> None:
        if checkpoint.config.model.head.kind != "words":
            raise PolicyError(
                f"{checkpoint.model_id} says {checkpoint.config.model.head.kind}; a planner needs the head `words`"
            )
        self._checkpoint, self._policy = checkpoint, VlaPolicy(checkpoint)
        self.cameras = checkpoint.config.model.cameras

    def plan(self, observation: Observation) -> str:
        """See `Planner`."""
        checkpoint = self._checkpoint
        with torch.inference_mode():
            answer = checkpoint.model.act(to_inputs(self._policy.raw(observation), checkpoint.stats))
        assert answer.words is not None
        return checkpoint.words.decode(answer.words[0].tolist())
