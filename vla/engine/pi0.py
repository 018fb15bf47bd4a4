"""π0's forward pass on fixed memory: pictures, words, state and noise to a chunk of actions (Black et al. 2024).

The sequence is image tokens, words, state, actions. Pictures and words see each other only, so their keys and values
are computed once; so are those of the state, which sees no action. Each Euler step then runs the action tokens alone,
which see everything, without a mask. What depends on time alone is computed when the engine is made: the steps' times
are always the same. An affine map after another is one map: an action's number enters the expert through one product.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reflexarc.configs.engine import WeightBits
from reflexarc.vla.engine.decoder import Decoder
from reflexarc.vla.engine.graphs import Graphs
from reflexarc.vla.engine.guidance import Guide, euler

PROMPT_ROOM = 64
"""Positions of the cache beyond the first sequence seen: a longer instruction later finds room."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pi0Parts:
    """The modules of a π0, whoever made them.

    see: pictures (B, 3, S, S) in [-1, 1] to tokens (B, N, width). embed: ids (B, L) to (B, L, width). language and
    expert: Gemmas with the same layers and keys. state, action_in, action_out, time_in, time_out: linear layers.
    min_period, max_period: of the time's sines.
    """

    see: Callable[[Tensor], Tensor]
    embed: Callable[[Tensor], Tensor]
    language: nn.Module
    expert: nn.Module
    state: nn.Linear
    action_in: nn.Linear
    action_out: nn.Linear
    time_in: nn.Linear
    time_out: nn.Linear
    min_period: float = 4e-3
    max_period: float = 4.0


class Pi0Engine:
    """horizon: actions H in a chunk. steps: of Euler's method. graphs: how passes are run. weights: in how many bits
    the language model's are held.
    """

    def __init__(
        self,
        parts: Pi0Parts,
        *,
        horizon: int,
        steps: int = 10,
        graphs: Graphs | None = None,
        weights: WeightBits = "full",
    ) -> None:
        self._parts = parts
        self._horizon = horizon
        self._steps = steps
        self._graphs = graphs or Graphs()
        self._weights: WeightBits = weights
        self._decoders: tuple[Decoder, Decoder] | None = None
        first: Any = parts.language
        self._dtype: torch.dtype = first.layers[0].self_attn.q_proj.weight.dtype
        with torch.inference_mode(False):  # guidance differentiates through them
            self._enter, self._times = _folded(parts, steps)

    @torch.inference_mode()
    def see(self, images: Tensor) -> Tensor:
        """Pictures (B, V, 3, S, S) in [-1, 1] to tokens (B, V·N, width); one pass for all views."""
        return self._graphs.run("see", lambda x: (self._see(x),), images)[0]

    @torch.inference_mode()
    def act(
        self, tokens: Tensor, ids: Tensor, state: Tensor, noise: Tensor, guide: Guide | None = None
    ) -> Tensor:
        """Actions (B, H, A) float32, normalised as in training, from image tokens and `noise` (B, H, A) at t = 1.

        ids: (B, L) words without padding. state: (B, P) normalised. guide: keeps them consistent with what is
        committed; it needs gradients and is never recorded as a graph.
        """
        words = self._parts.embed(ids).to(self._dtype)
        prefix = torch.cat([tokens.to(self._dtype), words], dim=1)
        self._make_room(len(prefix), prefix.shape[1] + 1 + self._horizon)
        if guide is None:
            return self._graphs.run("act", lambda *x: (self._whole(*x),), prefix, state, noise)[0]
        start = self._prefill(prefix, state)
        return euler(lambda x, step: self._velocity(x, step, start), noise, self._steps, guide)

    def _see(self, images: Tensor) -> Tensor:
        tokens: Tensor = self._parts.see(images.flatten(0, 1))
        together: Tensor = tokens.unflatten(0, images.shape[:2]).flatten(1, 2)
        return together

    def _whole(self, prefix: Tensor, state: Tensor, noise: Tensor) -> Tensor:
        start = self._prefill(prefix, state)
        return euler(lambda x, step: self._velocity(x, step, start), noise, self._steps)

    def _prefill(self, prefix: Tensor, state: Tensor) -> int:
        """Fill the cache with everything but the actions; returns how much that is."""
        language, expert = self._made()
        language.run(prefix, causal=False)
        felt = self._parts.state(state.to(self._parts.state.weight.dtype))[:, None].to(self._dtype)
        expert.run(felt, start=prefix.shape[1])
        return prefix.shape[1] + 1

    def _velocity(self, actions: Tensor, step: int, start: int) -> Tensor:
        """(B, H, A) float32 to the same: where the flow goes at the time of `step`."""
        _, expert = self._made()
        entered = F.linear(actions, self._enter, self._times[step]).to(self._dtype)
        out = self._parts.time_out
        tokens = F.linear(F.silu(entered), out.weight.to(self._dtype), out.bias.to(self._dtype))
        hidden = expert.run(tokens, start=start, causal=False)
        leave = self._parts.action_out
        return F.linear(hidden.to(leave.weight.dtype), leave.weight, leave.bias).float()

    def _made(self) -> tuple[Decoder, Decoder]:
        assert self._decoders is not None
        return self._decoders

    def _make_room(self, batch: int, length: int) -> None:
        layers = None
        if self._decoders is not None:
            room, layers = self._decoders[0].cache, self._decoders[0].layers
            if batch <= room.keys.shape[1] and length <= room.max_length:
                return
            self._graphs.clear()  # they read and write the old memory
        with torch.inference_mode(False), torch.no_grad():
            language = Decoder(
                self._parts.language,
                batch=batch,
                max_length=length + PROMPT_ROOM,
                layers=layers,
                weights=self._weights,
            )
            self._decoders = (language, Decoder(self._parts.expert, cache=language.cache))


def time_features(times: Sequence[float], width: int, min_period: float, max_period: float) -> Tensor:
    """(T,) in [0, 1] to (T, width) float32 sines and cosines of periods between the two (openpi's posemb_sincos)."""
    share = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64)
    period = min_period * (max_period / min_period) ** share
    angle = 2 * math.pi * torch.tensor(times, dtype=torch.float64)[:, None] / period
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()


@torch.no_grad()
def _folded(parts: Pi0Parts, steps: int) -> tuple[Tensor, Tensor]:
    """`time_in(cat(action_in(x), time))` as one map: its matrix (width, A), and for each step its bias (T, width)."""
    enter, mix = parts.action_in, parts.time_in
    width = enter.out_features
    times = time_features([1 - k / steps for k in range(steps)], width, parts.min_period, parts.max_period)
    actions, clock = mix.weight.float().split(width, dim=1)
    bias = times.to(mix.weight.device) @ clock.T + mix.bias.float() + actions @ enter.bias.float()
    return actions @ enter.weight.float(), bias
