"""A planner that says numbers: the slow level of a model of two (Helix S2), asked apart from the fast one."""

from __future__ import annotations

import torch

from reflexarc.configs.errors import PolicyError
from reflexarc.vla.preprocess import to_inputs
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

    def plan(self, observation: Observation) -> F64:
        """See `Planner`: (Z,)."""
        inputs = to_inputs(self._policy.raw(observation), self._policy.checkpoint.stats)
        with torch.inference_mode():
            latent: F64 = self._slow.latent(inputs)[0].double().numpy()
        return latent
