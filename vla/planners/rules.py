"""A planner of rules: what comes next by what was last commanded. It labels demonstrations too, row by row."""

from __future__ import annotations

from collections.abc import Sequence

from reflexarc.configs.planner import SubtaskRule
from reflexarc.wire.messages import Observation


class RulePlanner:
    """See `SubtaskRule`. It remembers nothing: the same state gives the same subtask."""

    cameras: tuple[str, ...] = ()
    period_s = 1.0

    def __init__(self, rules: Sequence[SubtaskRule]) -> None:
        self._rules = tuple(rules)

    def plan(self, observation: Observation) -> str:
        """See `Planner`."""
        state = observation.state
        height = float(state.pose_base_tcp_commanded[2])
        return self.say(observation.instruction, gripper=state.gripper_commanded, height=height)

    def say(self, task: str, *, gripper: float, height: float) -> str:
        """The subtask at this commanded opening and this commanded height of the TCP, m."""
        for rule in self._rules:
            if _holds(rule, gripper, height):
                return rule.say.replace("{task}", task)
        return task


def _holds(rule: SubtaskRule, gripper: float, height: float) -> bool:
    bounds = (
        (gripper, rule.gripper_above, rule.gripper_below),
        (height, rule.height_above, rule.height_below),
    )
    return all(
        (above is None or value > above) and (below is None or value < below)
        for value, above, below in bounds
    )
