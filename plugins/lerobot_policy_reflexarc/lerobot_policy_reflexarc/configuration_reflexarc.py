"""Which policy of Reflexarc's it is."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot.configs import PreTrainedConfig
from lerobot.optim import AdamWConfig


@PreTrainedConfig.register_subclass("reflexarc")
@dataclass
class ReflexarcConfig(PreTrainedConfig):
    """checkpoint: what `reflexarc serve --policy` takes. n_action_steps: of a chunk that are played before the next
    is asked for, as the controller does by default; 0 for all.
    """

    checkpoint: str = "reflexarc-tiny"
    n_action_steps: int = 4

    @property
    def observation_delta_indices(self) -> None:
        """One instant."""

    @property
    def action_delta_indices(self) -> None:
        """Not trained here."""

    @property
    def reward_delta_indices(self) -> None:
        """Not trained here."""

    def get_optimizer_preset(self) -> AdamWConfig:
        """Asked for by lerobot's trainer, which `reflexarc train` stands in for."""
        return AdamWConfig()

    def get_scheduler_preset(self) -> None:
        """None."""

    def validate_features(self) -> None:
        """The policy itself says what it lacks."""
