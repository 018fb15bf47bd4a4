"""A planner that says numbers: the slow level of a model of two (Helix S2), asked apart from the fast one."""

from __future__ import annotations

from collections.abc import Sequence

from reflexarc.configs.errors import PolicyError, ReflexarcError
from reflexarc.vla.inputs import Inputs
from reflexarc.vla.planners.planner import Plan
from reflexarc.vla.planners.together import plan_together
from reflexarc.vla.runtime import VlaPolicy
from reflexarc.wire.messages import F64, Observation


class LatentPlanner:
    """Above the policy that is told; both run the same checkpoint. Raises PolicyError for one without a slow level."""

    def __init__(self, policy: VlaPolicy) -> None:
        config, slow = policy.checkpoint.config, policy.checkpoint.model.slow
        if config.model.slow is None or slow is None:
            raise PolicyError(f"{config.name} has no slow level; a planner of latents needs model.slow")
        self._policy, self._slow = policy, slow
        self.cameras = config.model.cameras
        self.period_s = config.model.slow.lag * config.step_s
        """As long as the latent lagged in training, at most."""

    def plan(self, observation: Observation) -> Plan:
        """See `Planner`: (Z,)."""
        plan = self.plan_batch([observation])[0]
        if isinstance(plan, ReflexarcError):
            raise plan
        return plan

    def plan_batch(self, observations: Sequence[Observation]) -> list[Plan | ReflexarcError]:
        """See `BatchPlanner`: (Z,) each."""
        return plan_together(self._policy, observations, self._latents)

    def _latents(self, inputs: Inputs) -> list[Plan]:
        latents: F64 = self._slow.latent(inputs).double().cpu().numpy()
        return list(latents)
