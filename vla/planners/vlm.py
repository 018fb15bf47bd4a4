"""A planner that looks: a vision-language model whose head says words (the high level of π0.5)."""

from __future__ import annotations

from collections.abc import Sequence

from reflexarc.configs.errors import PolicyError, ReflexarcError
from reflexarc.vla.inputs import Inputs
from reflexarc.vla.planners.planner import Plan
from reflexarc.vla.planners.together import plan_together
from reflexarc.vla.runtime import VlaPolicy
from reflexarc.wire.messages import Observation


class VlmPlanner:
    """A checkpoint with the head `words`; raises PolicyError for any other."""

    period_s = 1.0

    def __init__(self, policy: VlaPolicy) -> None:
        config = policy.checkpoint.config
        if config.model.head.kind != "words":
            raise PolicyError(
                f"{config.name} says {config.model.head.kind}; a planner needs the head `words`"
            )
        self._policy = policy
        self.cameras = config.model.cameras

    def plan(self, observation: Observation) -> Plan:
        """See `Planner`: words."""
        plan = self.plan_batch([observation])[0]
        if isinstance(plan, ReflexarcError):
            raise plan
        return plan

    def plan_batch(self, observations: Sequence[Observation]) -> list[Plan | ReflexarcError]:
        """See `BatchPlanner`: words each."""
        return plan_together(self._policy, observations, self._words)

    def _words(self, inputs: Inputs) -> list[Plan]:
        said = self._policy.checkpoint.model.act(inputs).words
        assert said is not None
        return [self._policy.checkpoint.words.decode(row) for row in said.tolist()]
