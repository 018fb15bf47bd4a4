"""Real-time chunking for flow matching: a new chunk is drawn so that it goes on from what is being executed.

While a model thinks, the arm executes the old chunk. The first actions of the new one will be over when it arrives:
they must be the old ones, and those after them should not contradict the old ones' continuation. Real-time chunking
(Black, Galliker, Levine 2025, "Real-Time Execution of Action Chunking Flow Policies", algorithm 1) treats that as
in-painting: at each Euler step the chunk that the velocity points to is pulled towards the old one, through the
gradient of that prediction (ΠGDM; Pokle et al. 2023). The pull is clipped at β, because few steps would otherwise
diverge, and its weight falls softly over the overlap.

Time runs from 1 (noise) to 0 (actions) here, as in π0's code; the paper's τ is 1 - t.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

MAX_GUIDANCE = 5.0
"""β: the paper's choice for five steps and more."""

Velocity = Callable[[Tensor, int], Tensor]
"""Actions (B, H, A) at the time of a step to the velocity there, of the same shape."""


@dataclasses.dataclass(frozen=True, slots=True)
class Guide:
    """What a chunk is to go on from.

    target: (B, H, A) the old chunk's remaining actions from the new one's first on, in the flow's own units; anything
    where the weight is 0. weights: (B, H, 1) in 0..1, see `soft_mask`. most: β.
    """

    target: Tensor
    weights: Tensor
    most: float = MAX_GUIDANCE


def soft_mask(frozen: int, overlap: int, horizon: int) -> list[float]:
    """H weights: 1 for the `frozen` actions that will be over on arrival, then falling to 0 at the end of `overlap`.

    Equation 5 of the paper: exp(c) - 1 over e - 1, times c, where c falls linearly from 1 to 0 over what is neither
    frozen nor free.
    """
    frozen = min(frozen, overlap)
    weights = []
    for index in range(horizon):
        if index < frozen:
            weights.append(1.0)
        elif index < overlap:
            share = (overlap - index) / (overlap - frozen + 1)
            weights.append(share * math.expm1(share) / (math.e - 1))
        else:
            weights.append(0.0)
    return weights


def guidance_weight(time: float, most: float = MAX_GUIDANCE) -> float:
    """min(β, (1-τ)/τ · ((1-τ)² + τ²)/(1-τ)²) with τ = 1 - `time`."""
    tau = 1.0 - time
    if tau <= 0.0 or time <= 0.0:
        return most
    return min(most, (time / tau) * (time**2 + tau**2) / time**2)


def euler(velocity: Velocity, noise: Tensor, steps: int, guide: Guide | None = None) -> Tensor:
    """Integrate from `noise` (B, H, A) at t = 1 to actions at t = 0 in equal steps, guided if asked."""
    actions = noise
    for step in range(steps):
        time = 1.0 - step / steps
        flow = velocity(actions, step) if guide is None else guided(velocity, actions, step, time, guide)
        actions = actions - flow / steps
    return actions


def guided(velocity: Velocity, actions: Tensor, step: int, time: float, guide: Guide) -> Tensor:
    """The velocity (B, H, A) that also leads towards the guide's target."""
    with torch.inference_mode(False), torch.enable_grad():
        here = actions.clone().requires_grad_()
        flow = velocity(here, step)
        end = here - time * flow
        pull = (guide.target - end.detach()) * guide.weights
        correction = torch.autograd.grad(end, here, pull)[0]
    # Time falls along the integration, so what adds to the actions takes from the velocity.
    return flow.detach() - guidance_weight(time, guide.most) * correction
