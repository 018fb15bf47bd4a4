"""The vision-language-action model: tower, connector, language model, focus and action head put together.

It knows tensors only: what the bins mean in metres is the tokenizers' business, how tensors come from observations
is `preprocess.py`'s.

With `slow` it is two models, trained as one (Helix, Figure AI 2025): the slow one makes a vector of words, pictures and
state; the fast one is told nothing else of the words, and may be told it late. The vector is a token of the prefix
and part of the plan that actions start from (by the token alone the toy of the tests had not learned after 400 steps
what it learns in 100), and conditions tower and connector in place of the instruction.
"""

from __future__ import annotations

import dataclasses
from typing import cast

import torch
from torch import Tensor, nn

from reflexarc.configs.policy import ModelConfig
from reflexarc.vla.connectors import Resampler, build_connector
from reflexarc.vla.engine.reuse import Features, digest_pixels
from reflexarc.vla.focus import FocusHead
from reflexarc.vla.heads import HeadShape, build_head
from reflexarc.vla.inputs import Inputs
from reflexarc.vla.instruction import InstructionSummary
from reflexarc.vla.labels import Answer, Labels
from reflexarc.vla.state import build_state
from reflexarc.vla.tokenizers.text import PAD
from reflexarc.vla.trunk import Prefix, Trunk
from reflexarc.vla.vision import build_tower


class VlaModel(nn.Module):
    """words: size of the text vocabulary. proprio: number of features felt. horizon: actions H in a chunk.

    fixed_bins: (D,) int64, the bin of a dimension that never varies, -1 for the others. fast_tokens: size of the FAST
    vocabulary, 0 without. focus_centers: (6, 256) metres, the bins of the focus; None where there is no focus.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        words: int,
        proprio: int,
        horizon: int,
        fixed_bins: Tensor,
        focus_centers: Tensor | None,
        fast_tokens: int = 0,
    ) -> None:
        super().__init__()
        width, condition = config.language.width, config.condition_width
        self.config = config
        self.gated = config.connector.kind == "gated"
        self.trunk = Trunk(config.language, words, gated=self.gated)
        self.summary = InstructionSummary(width, condition, 1 + config.language.max_words)
        tower = build_tower(config)
        connector = build_connector(config, tower)
        head = build_head(config.head, HeadShape(config.language, horizon, fixed_bins, fast_tokens))
        self.tower, self.connector, self.head = tower, connector, head
        self.feel = build_state(config.state, proprio, width)
        self.focus = FocusHead(width, focus_centers) if config.focus and focus_centers is not None else None
        latent = 0 if config.slow is None else config.slow.head.width
        known = proprio + latent + (self.focus.features if self.focus else 0)
        self.plan = nn.Sequential(nn.Linear(known, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        self.seen: Features | None = None  # pictures that were seen before; only while weights stay
        self.slow: VlaModel | None = None
        if config.slow is not None:
            self.slow = VlaModel(
                config.slow_model(config.slow),
                words=words,
                proprio=proprio,
                horizon=horizon,
                fixed_bins=fixed_bins,
                focus_centers=None,
            )
            self.told, self.steer = nn.Linear(latent, width), nn.Linear(latent, condition)

    def forward(self, inputs: Inputs, labels: Labels) -> tuple[Tensor, Tensor | None]:
        """For training: the head's loss () and the focus logits (B, 2, 3, 256)."""
        inputs = self.tell(inputs)
        tokens, keep = self.see(inputs)
        prefix, plan, focus = self.think(inputs, tokens, keep)
        return self.head.loss(self.trunk, prefix, plan, labels), focus

    def tell(self, inputs: Inputs) -> Inputs:
        """What the fast level is given: the latent, made now if there is none, and of the words only their beginning.

        Where there is one level, that is all there is.
        """
        if self.slow is None:
            return inputs
        latent = inputs.latent
        if latent is None:
            latent = self.slow.latent(inputs.earlier or inputs)
        return dataclasses.replace(inputs, words=inputs.words[:, :1], latent=latent, earlier=None)

    def latent(self, inputs: Inputs) -> Tensor:
        """(B, Z): what this says as the slow level."""
        tokens, keep = self.see(inputs)
        prefix, plan, _ = self.think(inputs, tokens, keep)
        latent = self.head.decode(self.trunk, prefix, plan).latent
        assert latent is not None
        return latent

    def see(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Words and image tokens (B, L + N, width), and which of them are not padding (B, L + N) bool."""
        keep = inputs.words != PAD
        words = self.trunk.embed(inputs.words)
        condition = self.summary(words, keep)
        if inputs.latent is not None:
            condition = condition + self.steer(inputs.latent)
        images = self.connector(self._look(inputs.images, condition), condition)
        seen = inputs.seen.repeat_interleave(images.shape[1] // inputs.seen.shape[1], dim=1)
        return torch.cat([words.to(images.dtype), images], dim=1), torch.cat([keep, seen], dim=1)

    def _look(self, images: Tensor, condition: Tensor) -> Tensor:
        """The tower's maps (B, C, F, h, w). One by one where they are kept: the same however many of them are new."""
        if self.seen is None:
            whole: Tensor = self.tower(images, condition)
            return whole
        maps = []
        for image in images.flatten(0, 1):
            key = digest_pixels(image)
            found = self.seen.get(key)
            if found is None:
                found = self.tower(image[None, None], condition[:1])[0, 0]
                self.seen.put(key, found)
            maps.append(found)
        return torch.unflatten(torch.stack(maps), 0, images.shape[:2])

    def think(self, inputs: Inputs, tokens: Tensor, keep: Tensor) -> tuple[Prefix, Tensor, Tensor | None]:
        """The cached prefix, the plan (B, width) that every action token starts from, and the focus logits."""
        words, picture = inputs.words.shape[1], None
        if self.gated:
            picture = (tokens[:, words:], keep[:, words:])
            tokens, keep = tokens[:, :words], keep[:, :words]
        proprio, felt = self.feel(inputs.proprio, self.trunk)
        parts = [tokens, felt]
        if inputs.latent is not None:
            parts.append(self.told(inputs.latent)[:, None])
        if self.focus is not None:
            parts.append(self.focus.queries.expand(len(felt), -1, -1))
        extra = torch.ones(len(felt), sum(part.shape[1] for part in parts[1:]), dtype=torch.bool)
        keep = torch.cat([keep, extra.to(keep.device)], dim=1)
        embeddings = torch.cat([part.float() for part in parts], dim=1)
        hidden, prefix = self.trunk.prefix(embeddings, keep, words, picture, inputs.words)
        known, logits = [proprio] if inputs.latent is None else [proprio, inputs.latent], None
        if self.focus is not None:
            logits = self.focus.logits(self.trunk, hidden[:, -self.focus.queries.shape[0] :])
            known.append(self.focus.describe(logits, inputs.tcp))
        with torch.autocast(tokens.device.type, enabled=False):
            plan: Tensor = self.plan(torch.cat(known, dim=-1).float())
        return prefix, plan, logits

    @torch.inference_mode()
    def act(self, inputs: Inputs) -> Answer:
        """The head's answer; an `ActionCodec` reads it."""
        inputs = self.tell(inputs)
        tokens, keep = self.see(inputs)
        prefix, plan, _ = self.think(inputs, tokens, keep)
        return self.head.decode(self.trunk, prefix, plan)

    def narrow(self, dtype: torch.dtype) -> None:
        """Hold the matrices of the large parts in `dtype`, for acting under autocast: half the memory to be read.

        The others stay in float32: norms, tables, the small layers around state and focus, and the resampler, which
        computes places.
        """
        resampler = isinstance(self.connector, Resampler)
        parts = [self.tower, self.trunk.llama, getattr(self.head, "expert", None)]
        for part in (*parts, None if resampler else self.connector, self.slow):
            if isinstance(part, VlaModel):
                part.narrow(dtype)
            elif isinstance(part, nn.Module):
                for module in part.modules():
                    if isinstance(module, nn.Linear | nn.Conv2d):
                        module.to(dtype)

    def parameter_count(self) -> int:
        """Number of trained numbers."""
        return sum(cast(Tensor, each).numel() for each in self.parameters())
