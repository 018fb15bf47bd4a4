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
    """A checkpoint whose head says words, with how many threads of torch it thinks."""

    kind: Literal["vlm"]
    checkpoint: str


PlannerConfig = Annotated[RulePlannerConfig | VlmPlannerConfig, Field(discriminator="kind")]


class TwoLevelConfig(Config):
    """A slow planner above a fast policy. period_s: between two questions to the planner, by the observations' clock.

    background: ask it beside the policy, which goes on with the latest subtask meanwhile; without, the policy waits for
    it, and a run is the same every time.
    """

    planner: PlannerConfig
    policy: str
    period_s: float = Field(default=1.0, gt=0)
    background: bool = False
