"""Two levels: a slow planner says what comes next, a fast policy does the latest that was said (Helix, π0.5).

The policy never knows that there is a planner: its instruction is the subtask. In the background the planner thinks in
a thread of its own; the policy answers at once with the latest subtask, and an answer to an older question that comes
late is still the latest. Until the first one is there, the policy waits for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import yaml
from pydantic import ValidationError

from reflexarc.configs.errors import PolicyError
from reflexarc.configs.planner import RulePlannerConfig, TwoLevelConfig, VlmPlannerConfig
from reflexarc.vla.planners.planner import Planner
from reflexarc.vla.planners.rules import RulePlanner
from reflexarc.wire.contracts import Policy
from reflexarc.wire.messages import ActionChunk, Observation, PolicyInfo


@dataclasses.dataclass(slots=True)
class _Session:
    """What is known of one robot. subtask: the latest, "" before the first. task: what it was asked for."""

    task: str = ""
    subtask: str = ""
    asked_ns: int = 0
    pending: Future[str] | None = None


class TwoLevelPolicy:
    """planner above policy; see the header and `TwoLevelConfig`."""

    def __init__(
        self, planner: Planner, policy: Policy, *, period_s: float = 1.0, background: bool = False
    ) -> None:
        self._planner, self._policy = planner, policy
        self._period_ns = round(period_s * 1e9)
        self._pool = ThreadPoolExecutor(1, "planner") if background else None
        self._sessions: dict[str, _Session] = {}
        cameras = list(dict.fromkeys([*policy.info.cameras, *planner.cameras]))
        self._info = msgspec.structs.replace(policy.info, cameras=cameras)

    @property
    def info(self) -> PolicyInfo:
        """The policy's, with the cameras of both."""
        return self._info

    def reset(self, session: str) -> None:
        """Forget the subtask: the planner is asked anew."""
        self._sessions.pop(session, None)
        self._policy.reset(session)

    def act(self, observation: Observation) -> ActionChunk:
        """The policy's answer to the observation with the latest subtask in place of the task."""
        subtask = self.subtask(observation)
        return self._policy.act(msgspec.structs.replace(observation, instruction=subtask))

    def subtask(self, observation: Observation) -> str:
        """The latest subtask of the observation's session; asks the planner where it is time to."""
        known = self._sessions.setdefault(observation.session, _Session())
        if known.task != observation.instruction:
            known = self._sessions[observation.session] = _Session(task=observation.instruction)
        if known.pending is not None and known.pending.done():
            known.subtask, known.pending = known.pending.result(), None
        due = not known.subtask or observation.t_obs_ns - known.asked_ns >= self._period_ns
        if due and known.pending is None:
            known.asked_ns = observation.t_obs_ns
            if self._pool is None:
                known.subtask = self._planner.plan(observation)
            else:
                known.pending = self._pool.submit(self._planner.plan, observation)
        if not known.subtask and known.pending is not None:
            known.subtask, known.pending = known.pending.result(), None
        return known.subtask


def _rules(config: RulePlannerConfig, beside: Path) -> Planner:
    return RulePlanner(config.rules)


def _vlm(config: VlmPlannerConfig, beside: Path) -> Planner:
    from reflexarc.vla.checkpoint import find, load_checkpoint
    from reflexarc.vla.planners.vlm import VlmPlanner

    return VlmPlanner(load_checkpoint(find(_relative(config.checkpoint, beside))))


PLANNERS: dict[str, Callable[[Any, Path], Planner]] = {"rules": _rules, "vlm": _vlm}
"""From a planner's settings, and the folder that its paths are relative to."""


def load_two_level(path: Path, threads: int) -> Policy | None:
    """The policy of a settings file with a `planner`; None if it is not one. Raises PolicyError naming the field."""
    from reflexarc.vla.checkpoint import load_policy

    if path.is_dir():
        return None
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise PolicyError(f"cannot read the settings file {path}: {error}") from error
    if not isinstance(data, dict) or "planner" not in data:
        return None
    try:
        config = TwoLevelConfig.model_validate(data)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise PolicyError(f"{path}: {where}: {problem['msg']}") from error
    planner = PLANNERS[config.planner.kind](config.planner, path.parent)
    policy = load_policy(_relative(config.policy, path.parent), threads=threads)
    return TwoLevelPolicy(planner, policy, period_s=config.period_s, background=config.background)


def _relative(name: str, folder: Path) -> str:
    """A name, or a path relative to the settings file."""
    return str(folder / name) if (folder / name).exists() else name
