"""Schemas of the two-level mode: how a task is cut into subtasks, and who says which one comes next."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from reflexarc.configs.base import Config


class SubtaskRule(Config):
    """Say these words while all conditions hold that are set; `{task}` in them is the instruction.

    Of what was last commanded: gripper_below, gripper_above: opening 0..1; height_below, height_above: of the TCP in
    the base frame, m.
    """

    say: str = Field(min_length=1)
    gripper_below: float | None = None
    gripper_above: float | None = None
    height_below: float | None = None
    height_above: float | None = None


class RulePlannerConfig(Config):
    """The first rule whose conditions hold; the instruction itself where none does."""

    kind: Literal["rules"]
    rules: tuple[SubtaskRule, ...] = Field(min_length=1)


class VlmPlannerConfig(Config):
    """A checkpoint whose head says words."""

    kind: Literal["vlm"]
    checkpoint: str


class LatentPlannerConfig(Config):
    """The slow level of the policy's own checkpoint (`model.slow`): it says vectors."""

    kind: Literal["latent"]


PlannerConfig = Annotated[
    RulePlannerConfig | VlmPlannerConfig | LatentPlannerConfig, Field(discriminator="kind")
]


class TwoLevelConfig(Config):
    """A slow planner above a fast policy.

    period_s: between two questions to the planner, by the observations' clock; where not set 1 s, and of a latent as
    long as it lagged in training. background: ask it beside the policy, which goes on with the latest answer
    meanwhile; without, the policy waits for it, and a run is the same every time. max_age_s: an answer to an older
    observation is not acted on; for as long, too, the policy waits for the first one.
    """

    planner: PlannerConfig
    policy: str
    period_s: float | None = Field(default=None, gt=0)
    background: bool = False
    max_age_s: float = Field(default=30.0, gt=0)
