"""Flow matching by an action expert (π0, Black et al. 2024; π0.5, Physical Intelligence 2025).

Between an action chunk a and noise n lie x = t·n + (1 - t)·a; the expert learns the velocity n - a. To act, noise is
drawn at t = 1 and followed down to t = 0 in equal steps of Euler's method. In training t is drawn as in π0's code, more
often where there is more noise: 0.001 + 0.999·Beta(1.5, 1).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reflexarc.configs.policy import FlowHeadConfig
from reflexarc.vla.commitment import Commitment
from reflexarc.vla.engine.guidance import Guide, euler
from reflexarc.vla.engine.pi0 import time_features
from reflexarc.vla.heads.expert import ActionExpert
from reflexarc.vla.heads.shape import HeadShape
from reflexarc.vla.labels import Answer, Labels
from reflexarc.vla.loss import masked_mean
from reflexarc.vla.trunk import Prefix, Trunk

TIME_SHAPE, TIME_FLOOR = 1.5, 0.001
PERIODS = (4e-3, 4.0)
"""Shortest and longest period of the time's sines (openpi)."""


class FlowHead(nn.Module):
    """See the header. Dimensions that never vary are 0 and take no part."""

    varies: Tensor
    noise: Tensor

    def __init__(self, config: FlowHeadConfig, shape: HeadShape) -> None:
        super().__init__()
        self.config, self.dims = config, shape.dims
        width, count = config.width, len(shape.varies)
        self.register_buffer("varies", shape.varies, persistent=False)
        # The same for every answer: what a policy says depends on nothing but what it is given.
        drawn = torch.randn(shape.horizon, count, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", drawn, persistent=False)
        adaptive = config.time == "adarms"
        self.enter = nn.Linear(count, width)
        self.plan = nn.Linear(shape.language.width, width)
        self.time_in = nn.Linear(width if adaptive else 2 * width, width)
        self.time_out = nn.Linear(width, width)
        self.expert = ActionExpert(width, config.mlp_width, shape.language, width if adaptive else 0)
        self.leave = nn.Linear(width, count)

    def velocity(
        self, trunk: Trunk, prefix: Prefix, plan: Tensor, actions: Tensor, times: Sequence[float]
    ) -> Tensor:
        """(N, H, V) at N times in 0..1, where plan is (N, width); N is the prefix's B or a multiple of it."""
        clock = time_features(times, self.config.width, *PERIODS).to(actions.device)
        tokens, condition = self.enter(actions), None
        if self.config.time == "adarms":
            condition = F.silu(self.time_out(F.silu(self.time_in(clock))))
        else:
            both = torch.cat([tokens, clock[:, None].expand_as(tokens).to(tokens.dtype)], dim=-1)
            tokens = self.time_out(F.silu(self.time_in(both)))
        hidden = self.expert(tokens + self.plan(plan)[:, None], trunk, prefix, condition)
        flow: Tensor = self.leave(hidden)
        return flow.float()

    def loss(self, trunk: Trunk, prefix: Prefix, plan: Tensor, labels: Labels) -> Tensor:
        """See `Head`. Several draws of noise and time of each sample share one pass of the trunk."""
        draws = self.config.draws
        actions = labels.values[..., self.varies].repeat_interleave(draws, dim=0)
        times = draw_times(len(actions))
        noise = torch.randn_like(actions)
        share = times.to(actions.device)[:, None, None]
        mixed = share * noise + (1.0 - share) * actions
        flow = self.velocity(trunk, prefix, plan.repeat_interleave(draws, dim=0), mixed, times.tolist())
        wrong = (flow - (noise - actions)).square().mean(-1)
        return masked_mean(wrong, labels.mask.repeat_interleave(draws, dim=0))

    def decode(
        self, trunk: Trunk, prefix: Prefix, plan: Tensor, committed: Commitment | None = None
    ) -> Answer:
        """See `Head`. Guided towards what is committed, the more the sooner it is due."""
        noise, guide = self.noise.expand(len(plan), -1, -1), None
        if committed is not None:
            target, weights = committed.values[..., self.varies], committed.weights[..., None]
            guide = Guide(target, weights)
            with torch.inference_mode(False):
                plan = plan.clone()  # a gradient flows past it
        follow = functools.partial(self._step, trunk, prefix, plan)
        numbers = euler(follow, noise, self.config.steps, guide)
        values = numbers.new_zeros(*numbers.shape[:2], self.dims)
        values[..., self.varies] = numbers
        return Answer(values=values)

    def _step(self, trunk: Trunk, prefix: Prefix, plan: Tensor, actions: Tensor, step: int) -> Tensor:
        return self.velocity(trunk, prefix, plan, actions, [1.0 - step / self.config.steps] * len(actions))


def draw_times(count: int) -> Tensor:
    """(N,) times of training samples: 0.001 + 0.999·Beta(1.5, 1), by the inverse of its distribution."""
    return TIME_FLOOR + (1.0 - TIME_FLOOR) * torch.rand(count) ** (1.0 / TIME_SHAPE)
