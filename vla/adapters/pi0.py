"""lerobot's π0 on our engine: the same weights and the same numbers, several times faster.

lerobot runs its two Gemmas through `transformers` with a copy of the cache for each of ten steps; the engine
(`engine/pi0.py`) fills one cache and replays. Where it cannot (prompts of several lengths at once, lerobot's own
real-time chunking) lerobot's code runs as it is.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from reflexarc.configs.engine import Pi0EngineConfig
from reflexarc.vla.engine.graphs import Graphs
from reflexarc.vla.engine.guidance import Guide
from reflexarc.vla.engine.pi0 import Pi0Engine, Pi0Parts
from reflexarc.vla.placement import wait


def accelerate(model: Any, engine: Pi0EngineConfig | None = None) -> Sampler:
    """Let `model`, a PI0Pytorch, sample its actions on the engine from now on; it is then for inference only."""
    sampler = Sampler(model, model.sample_actions, engine or Pi0EngineConfig())
    model.sample_actions = sampler
    return sampler


def parts_of(model: Any) -> Pi0Parts:
    """The modules of a PI0Pytorch. The vision tower is brought to the language model's precision."""
    both = model.paligemma_with_expert
    whole = both.paligemma.model
    language = whole.language_model
    dtype = language.layers[0].self_attn.q_proj.weight.dtype
    for module in (whole.vision_tower, whole.multi_modal_projector):
        module.to(dtype)

    def see(images: Tensor) -> Tensor:
        features: Tensor = whole.get_image_features(images.to(dtype)).pooler_output
        return features

    return Pi0Parts(
        see=see,
        embed=language.get_input_embeddings(),
        language=language,
        expert=both.gemma_expert.model,
        state=model.state_proj,
        action_in=model.action_in_proj,
        action_out=model.action_out_proj,
        time_in=model.action_time_mlp_in,
        time_out=model.action_time_mlp_out,
        min_period=model.config.min_period,
        max_period=model.config.max_period,
    )


class Sampler:
    """Stands for `PI0Pytorch.sample_actions`, which it falls back to.

    last: what it sampled last, (B, H, A) normalised. `go_on` makes the next sample continue it. vision_ns: what the
    pictures of the last sample took; None where lerobot's own code ran, which does not say.
    """

    def __init__(self, model: Any, before: Any, engine: Pi0EngineConfig) -> None:
        self._model = model
        self._before = before
        self._engine_config = engine
        self._engines: dict[int, Pi0Engine] = {}
        self._guide: Guide | None = None
        self.last: Tensor | None = None
        self.vision_ns: int | None = None

    def go_on(self, guide: Guide | None) -> None:
        """Guide the next sample, and no other; see `going_on`."""
        self._guide = guide

    def __call__(
        self,
        images: list[Tensor],
        img_masks: list[Tensor],
        lang_tokens: Tensor,
        lang_masks: Tensor,
        state: Tensor,
        noise: Tensor | None = None,
        num_steps: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        lengths = lang_masks.sum(dim=1)
        seen = [image for image, mask in zip(images, img_masks, strict=True) if bool(mask.all())]
        partly = any(bool(mask.any()) and not bool(mask.all()) for mask in img_masks)
        guide, self._guide, self.last, self.vision_ns = self._guide, None, None, None
        if kwargs or partly or not seen or int(lengths.min()) != int(lengths.max()):
            before: Tensor = self._before(
                images, img_masks, lang_tokens, lang_masks, state, noise, num_steps, **kwargs
            )
            return before
        config = self._model.config
        if noise is None:
            shape = (len(state), config.chunk_size, config.max_action_dim)
            noise = self._model.sample_noise(shape, state.device)
        engine = self._engine(num_steps or config.num_inference_steps)
        began = time.perf_counter_ns()
        tokens = engine.see(torch.stack(seen, dim=1))
        wait(state.device)
        self.vision_ns = time.perf_counter_ns() - began
        words = lang_tokens[:, : int(lengths[0])]
        self.last = engine.act(tokens, words, state, noise, guide)
        return self.last

    def _engine(self, steps: int) -> Pi0Engine:
        if steps not in self._engines:
            how = self._engine_config
            self._engines[steps] = Pi0Engine(
                parts_of(self._model),
                horizon=self._model.config.chunk_size,
                steps=steps,
                graphs=Graphs(enabled=how.graphs, compiled=how.compile),
                weights=how.weights,
            )
        return self._engines[steps]
