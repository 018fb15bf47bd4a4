"""Nothing is normalised on the way in or out: the policy does that itself, with its own statistics."""

from __future__ import annotations

from typing import Any

from lerobot.processor import AddBatchDimensionProcessorStep, DeviceProcessorStep, PolicyProcessorPipeline
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action

from lerobot_policy_reflexarc.configuration_reflexarc import ReflexarcConfig


def make_reflexarc_pre_post_processors(
    config: ReflexarcConfig, dataset_stats: dict[str, Any] | None = None
) -> tuple[Any, Any]:
    """Batches go to the device, actions come back to the CPU."""
    before = PolicyProcessorPipeline(
        steps=[AddBatchDimensionProcessorStep(), DeviceProcessorStep(device=str(config.device))],
        name="policy_preprocessor",
    )
    after = PolicyProcessorPipeline(
        steps=[DeviceProcessorStep(device="cpu")],
        name="policy_postprocessor",
        to_transition=policy_action_to_transition,
        to_output=transition_to_policy_action,
    )
    return before, after
