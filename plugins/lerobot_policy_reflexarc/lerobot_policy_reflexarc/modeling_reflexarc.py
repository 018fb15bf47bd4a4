"""A policy of Reflexarc's behind lerobot's interface: batches of tensors in, one action or chunk a row out.

The weights stay where they are, in the checkpoint that the configuration names; saving saves the configuration alone.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import OBS_IMAGES, OBS_STATE
from torch import Tensor

from lerobot_policy_reflexarc.configuration_reflexarc import ReflexarcConfig
from reflexarc.configs.action import ActionSpec
from reflexarc.configs.errors import PolicyError
from reflexarc.configs.placement import Placement
from reflexarc.vla.adapters.flat_state import unflatten
from reflexarc.vla.checkpoint import load_policy
from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import Observation


class ReflexarcPolicy(PreTrainedPolicy):
    """See the header."""

    config_class = ReflexarcConfig
    name = "reflexarc"

    def __init__(self, config: ReflexarcConfig, **_: Any) -> None:
        super().__init__(config)
        on_gpu = str(config.device).startswith("cuda")
        self.inner = load_policy(config.checkpoint, placement=Placement(device="cuda" if on_gpu else "cpu"))
        self.spec = ActionSpec.model_validate_json(self.inner.info.action_spec)
        self._played = min(config.n_action_steps or self.spec.horizon, self.spec.horizon)
        self.reset()

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path, *, config: PreTrainedConfig | None = None, **_: Any
    ) -> ReflexarcPolicy:
        """The policy that the folder's configuration names."""
        loaded = config or PreTrainedConfig.from_pretrained(pretrained_name_or_path)
        assert isinstance(loaded, ReflexarcConfig)
        return cls(loaded)

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        self.config._save_pretrained(save_directory)

    def reset(self) -> None:
        """Begin new episodes in every row."""
        self._asked = 0
        self._queue: deque[Tensor] = deque()
        self._sessions: set[str] = set()

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **_: Any) -> Tensor:
        """(B, 7) the next action of each row; a new chunk is asked for when the last one is played."""
        if not self._queue:
            self._queue.extend(self.predict_action_chunk(batch).transpose(0, 1)[: self._played])
        return self._queue.popleft()

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Any], **_: Any) -> Tensor:
        """(B, H, 7) in Reflexarc's canonical action space."""
        rows = len(batch[OBS_STATE])
        chunks = [self.inner.act(self._observation(batch, row)).actions for row in range(rows)]
        self._asked += 1
        return torch.from_numpy(np.stack(chunks).astype(np.float32)).to(batch[OBS_STATE].device)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any] | None]:
        """Raises PolicyError: these policies are trained by `reflexarc train`."""
        raise PolicyError("a policy of Reflexarc's is trained by `reflexarc train`, not by lerobot")

    def get_optim_params(self) -> dict[str, Any]:
        """Nothing to train here."""
        return {}

    def _observation(self, batch: dict[str, Any], row: int) -> Observation:
        """One row of the batch. The time is that of a lockstep: chunks asked for, times how long they are played."""
        session = f"lerobot/{row}"
        if session not in self._sessions:
            self.inner.reset(session)
            self._sessions.add(session)
        t_ns = self._asked * self._played * self.spec.step_ns
        images = {}
        for camera in self.inner.info.cameras:
            key = f"{OBS_IMAGES}.{camera}"
            if key not in batch:
                raise PolicyError(f"the batch has no {key}; it has {', '.join(sorted(batch))}")
            pixels = (
                (batch[key][row] * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
            )
            images[camera] = encode_image(
                np.ascontiguousarray(pixels),
                camera=camera,
                seq=self._asked,
                t_capture_ns=t_ns,
                clock="virtual",
            )
        task = batch.get("task") or ""
        return Observation(
            t_ns=t_ns,
            clock="virtual",
            seq=self._asked,
            t_obs_ns=t_ns,
            state=unflatten(batch[OBS_STATE][row].cpu().numpy(), seq=self._asked, t_ns=t_ns),
            images=images,
            instruction=task if isinstance(task, str) else task[row],
            session=session,
        )
