"""lerobot's flow policies (π0.5, SmolVLA) go on from what they said: our guidance, by the hook of lerobot's own.

lerobot's Euler loop asks an `rtc_processor` for the velocity where real-time chunking is enabled. Ours stands there
(`engine/guidance.py`). lerobot 0.6's computes the velocity before it asks for gradients, so that the pull does not go
through the model; the paper's does.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from reflexarc.vla.engine.guidance import Guide, guided, soft_mask


def going_on(earlier: Tensor, passed: int, frozen: int) -> Guide:
    """To go on from a chunk (1, H, A) of which `passed` actions are over.

    frozen: of those that follow, how many will be over when the sample arrives.
    """
    left = earlier[:, passed:]
    horizon = earlier.shape[1]
    weights = torch.tensor(soft_mask(frozen, left.shape[1], horizon), device=earlier.device)
    return Guide(F.pad(left, (0, 0, 0, horizon - left.shape[1])), weights.view(1, -1, 1))


class GuidedSampler:
    """Stands for `sample_actions` of a model of lerobot, which is then for inference only, and for its `rtc_processor`.

    last: what it sampled last, (B, H, A) normalised. `go_on` makes the next sample continue it. vision_ns: None, since
    lerobot does not say.
    """

    vision_ns: int | None = None

    def __init__(self, model: Any) -> None:
        self._sample: Callable[..., Tensor] = model.sample_actions
        self._switch = types.SimpleNamespace(enabled=False)
        self._guide: Guide | None = None
        self.last: Tensor | None = None
        model.requires_grad_(False)
        model.config.rtc_config = self._switch
        model.rtc_processor = self
        model.sample_actions = self

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether lerobot's hook is there."""
        return hasattr(model, "rtc_processor") and hasattr(model, "sample_actions")

    def go_on(self, guide: Guide | None) -> None:
        """Guide the next sample, and no other; see `going_on`."""
        self._guide = guide

    def __call__(self, *given: Any, **options: Any) -> Tensor:
        self._switch.enabled = self._guide is not None
        try:
            self.last = self._sample(*given, **options)
        finally:
            self._switch.enabled, self._guide = False, None
        return self.last

    def denoise_step(
        self, x_t: Tensor, time: float, original_denoise_step_partial: Callable[[Tensor], Tensor], **_: Any
    ) -> Tensor:
        """lerobot's hook: the velocity at `x_t` (B, H, A), guided."""
        assert self._guide is not None
        return guided(lambda x, _: original_denoise_step_partial(x), x_t, 0, time, self._guide)

    def is_debug_enabled(self) -> bool:
        """lerobot's hook: nothing is recorded."""
        return False
