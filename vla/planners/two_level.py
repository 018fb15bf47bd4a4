"""Two levels: a slow planner says what comes next, a fast policy does the latest that was said (Helix, π0.5).

Words stand in the observation in place of the task: the policy never knows that there is a planner. A latent stands
beside it, and the policy was trained with it. In the background the planner thinks in a thread of its own; the policy
answers at once with the latest that was said, and an answer to an older question that comes late is still the latest,
unless it is too old to act on. Until the first one is there, the policy waits for it. Robots that are to be planned for
at the same time, or while the planner is thinking about others, are planned for in one pass.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import torch
import yaml
from pydantic import ValidationError

from reflexarc.configs.errors import PolicyError, ReflexarcError
from reflexarc.configs.placement import Placement
from reflexarc.configs.planner import (
    LatentPlannerConfig,
    RulePlannerConfig,
    TwoLevelConfig,
    VlmPlannerConfig,
)
from reflexarc.vla.answers import answers_to
from reflexarc.vla.checkpoint import find, load_own, load_policy
from reflexarc.vla.planners.latent import LatentPlanner
from reflexarc.vla.planners.planner import Plan, Planner, plans_for
from reflexarc.vla.planners.rules import RulePlanner
from reflexarc.vla.planners.vlm import VlmPlanner
from reflexarc.vla.runtime import VlaPolicy
from reflexarc.wire.contracts import Policy
from reflexarc.wire.messages import ActionChunk, Observation, PolicyInfo

MAX_AGE_S = TwoLevelConfig.model_fields["max_age_s"].default


@dataclasses.dataclass(slots=True)
class _Session:
    """What is known of one robot.

    task: what it was asked for. latest: what was said last, None before the first; of_ns: of which observation.
    pending: what is being thought about; asked_ns: the observation that was asked about last.
    """

    task: str
    latest: Plan | None = None
    of_ns: int = 0
    pending: Future[Plan] | None = None
    asked_ns: int = 0

    def due(self, now_ns: int, period_ns: int) -> bool:
        """Whether it is time to ask again."""
        return self.pending is None and (self.latest is None or now_ns - self.asked_ns >= period_ns)

    def hear(self, patience_s: float) -> None:
        """The answer that is pending; raises what the planner raised, and TimeoutError if nothing comes."""
        assert self.pending is not None
        pending, self.pending = self.pending, None
        self.latest, self.of_ns = pending.result(patience_s), self.asked_ns


class TwoLevelPolicy:
    """planner above policy; see the header and `TwoLevelConfig`."""

    def __init__(
        self,
        planner: Planner,
        policy: Policy,
        *,
        period_s: float | None = None,
        background: bool = False,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        self.planner, self.policy = planner, policy
        self._period_ns = round((planner.period_s if period_s is None else period_s) * 1e9)
        self._max_age_s = max_age_s
        self._pool = ThreadPoolExecutor(1, "planner") if background else None
        self._asked: deque[tuple[Observation, Future[Plan]]] = deque()
        self._sessions: dict[str, _Session] = {}
        cameras = list(dict.fromkeys([*policy.info.cameras, *planner.cameras]))
        self._info = msgspec.structs.replace(policy.info, cameras=cameras)

    @property
    def info(self) -> PolicyInfo:
        """The policy's, with the cameras of both."""
        return self._info

    def reset(self, session: str) -> None:
        """Forget what was said: the planner is asked anew."""
        self._sessions.pop(session, None)
        self.policy.reset(session)

    def act(self, observation: Observation) -> ActionChunk:
        """The policy's answer to the observation and the latest plan; raises PolicyError as `latest` does."""
        return self.policy.act(_told(observation, self.latest(observation)))

    def act_batch(self, observations: list[Observation]) -> list[ActionChunk | ReflexarcError]:
        """Answers to several robots, from one pass of each level where it can; each robot has a plan of its own."""
        told: list[Observation | ReflexarcError] = []
        for observation, plan in zip(observations, self.plans(observations), strict=True):
            told.append(plan if isinstance(plan, ReflexarcError) else _told(observation, plan))
        asked = [each for each in told if isinstance(each, Observation)]
        answers = iter(answers_to(self.policy, asked) if asked else [])
        return [next(answers) if isinstance(each, Observation) else each for each in told]

    def latest(self, observation: Observation) -> Plan:
        """The latest plan of the observation's session; asks the planner where it is time to.

        Raises PolicyError as the planner does, and if no plan came or the latest is too old.
        """
        plan = self.plans([observation])[0]
        if isinstance(plan, ReflexarcError):
            raise plan
        return plan

    def plans(self, observations: list[Observation]) -> list[Plan | ReflexarcError]:
        """`latest` of each, or the error it would raise. The planner is asked at once about all whose time it is."""
        failed: dict[int, ReflexarcError] = {}
        sessions = []
        for index, observation in enumerate(observations):
            sessions.append(known := self._session(observation))
            try:
                if known.pending is not None and known.pending.done():
                    known.hear(0)
                if known.due(observation.t_obs_ns, self._period_ns):
                    known.asked_ns, known.pending = observation.t_obs_ns, Future()
                    self._asked.append((observation, known.pending))
            except ReflexarcError as error:
                failed[index] = error
        if self._pool is None:
            self._think()
        elif self._asked:
            self._pool.submit(self._think)
        deadline = (
            time.monotonic() + self._max_age_s
        )  # of all together: nobody waits for several robots' plans
        found: list[Plan | ReflexarcError] = []
        for index, (observation, known) in enumerate(zip(observations, sessions, strict=True)):
            try:
                found.append(
                    failed[index] if index in failed else self._heard(known, observation.t_obs_ns, deadline)
                )
            except ReflexarcError as error:
                found.append(error)
        return found

    def _session(self, observation: Observation) -> _Session:
        known = self._sessions.get(observation.session)
        if known is None or known.task != observation.instruction or observation.t_obs_ns < known.asked_ns:
            known = self._sessions[observation.session] = _Session(observation.instruction)
        return known

    def _heard(self, known: _Session, now: int, deadline: float) -> Plan:
        """What was said last, which may have to be waited for. Raises as `latest`."""
        if known.pending is not None and (self._pool is None or known.latest is None):
            try:
                known.hear(max(0.0, deadline - time.monotonic()))
            except TimeoutError as error:
                raise PolicyError(
                    f"the planner said nothing for {self._max_age_s:g} s (max_age_s)"
                ) from error
        age_s = (now - known.of_ns) * 1e-9
        if age_s > self._max_age_s:
            raise PolicyError(
                f"the latest plan is of {age_s:.3g} s ago, acted on are those of {self._max_age_s:g} s (max_age_s); "
                "the planner is too slow or hangs"
            )
        assert known.latest is not None
        return known.latest

    def _think(self) -> None:
        """Ask the planner about all that wait by now. Never more than one thread is here."""
        waiting = []
        while self._asked:
            waiting.append(self._asked.popleft())
        if not waiting:
            return  # they were taken along by the one before
        try:
            plans = plans_for(self.planner, [observation for observation, _ in waiting])
        except Exception as error:  # whatever it is, those who wait for an answer must hear of it
            for _, answer in waiting:
                answer.set_exception(error)
            return
        for (_, answer), plan in zip(waiting, plans, strict=True):
            if isinstance(plan, ReflexarcError):
                answer.set_exception(plan)
            else:
                answer.set_result(plan)


def _told(observation: Observation, plan: Plan) -> Observation:
    if isinstance(plan, str):
        return msgspec.structs.replace(observation, instruction=plan)
    return msgspec.structs.replace(observation, latent=plan)


def above(policy: VlaPolicy) -> Policy:
    """The policy below the slow level of its own model; the policy itself if that has none."""
    if policy.checkpoint.config.model.slow is None:
        return policy
    return TwoLevelPolicy(LatentPlanner(policy), policy)


def _rules(
    config: RulePlannerConfig, beside: Path, policy: Policy, said: Placement
) -> tuple[Planner, Policy]:
    return RulePlanner(config.rules), policy


def _vlm(config: VlmPlannerConfig, beside: Path, policy: Policy, said: Placement) -> tuple[Planner, Policy]:
    threads = torch.get_num_threads()  # as many as the policy was loaded with
    return VlmPlanner(load_own(find(_relative(config.checkpoint, beside)), threads, said)), policy


def _latent(
    config: LatentPlannerConfig, beside: Path, policy: Policy, said: Placement
) -> tuple[Planner, Policy]:
    """Both levels are one checkpoint, which `load_policy` has loaded."""
    if not isinstance(policy, TwoLevelPolicy) or not isinstance(policy.planner, LatentPlanner):
        raise PolicyError(f"{policy.info.model_id} has no slow level; a planner of latents needs model.slow")
    return policy.planner, policy.policy


PLANNERS: dict[str, Callable[[Any, Path, Policy, Placement], tuple[Planner, Policy]]] = {
    "rules": _rules,
    "vlm": _vlm,
    "latent": _latent,
}
"""From a planner's settings, the folder its paths are relative to, the policy and where models run, to two levels."""


def load_two_level(path: Path, threads: int, said: Placement) -> Policy | None:
    """The policy of a settings file with a `planner`; None if it is not one. Raises PolicyError naming the field."""
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
    below = load_policy(_relative(config.policy, path.parent), threads=threads, placement=said)
    planner, policy = PLANNERS[config.planner.kind](config.planner, path.parent, below, said)
    return TwoLevelPolicy(
        planner,
        policy,
        period_s=config.period_s,
        background=config.background,
        max_age_s=config.max_age_s,
    )


def _relative(name: str, folder: Path) -> str:
    """A name, or a path relative to the settings file."""
    return str(folder / name) if (folder / name).exists() else name
