"""Who waits for an answer: at most one observation a robot, in the order in which their turn came.

No sockets and no clock of its own: times are given, so that every rule is tested without waiting.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Hashable

from reflexarc.configs.serving import ServingConfig
from reflexarc.wire.messages import Observation

DUE_WITHIN = 3.0
"""A robot is expected to ask again within this many of its usual periods; after that no batch waits for it."""

MOST_KNOWN = 1024
"""Of more robots than these, who asked only once is forgotten first."""


@dataclasses.dataclass(slots=True)
class Waiting[K: Hashable]:
    """One observation in the queue. t_ns: when this robot's turn began to count; arrived_ns: of this observation."""

    key: K
    observation: Observation
    t_ns: int
    arrived_ns: int


@dataclasses.dataclass(slots=True)
class _Robot:
    """How often a robot asks: when it was heard last, and its smoothed period, ns (0: it has asked only once)."""

    heard_ns: int
    period_ns: float = 0.0


class Queue[K: Hashable]:
    """Admission, order and batches. K identifies a robot."""

    def __init__(self, config: ServingConfig) -> None:
        self._config = config
        self._waiting: OrderedDict[K, Waiting[K]] = OrderedDict()
        self._robots: OrderedDict[K, _Robot] = OrderedDict()  # who was heard longest ago comes first

    def __len__(self) -> int:
        return len(self._waiting)

    def clients(self, now_ns: int) -> int:
        """How many robots count towards max_clients."""
        self._forget(now_ns)
        return sum(self._counts(key, robot) for key, robot in self._robots.items())

    def refusal(self, key: K, now_ns: int) -> str:
        """Why a robot is not taken on, empty if it is."""
        limit, count = self._config.max_clients, self.clients(now_ns)
        robot = self._robots.get(key)
        if count < limit or (robot is not None and self._counts(key, robot)):
            return ""
        return f"the policy server is full: it serves {limit} robots (max_clients); ask another replica"

    def put(self, key: K, observation: Observation, now_ns: int) -> Waiting[K] | None:
        """Let it wait. Returns what it replaces: the robot's older observation, which has become worthless."""
        robot = self._robots.setdefault(key, _Robot(now_ns))
        self._robots.move_to_end(key)
        gap = now_ns - robot.heard_ns
        robot.period_ns = 0.8 * robot.period_ns + 0.2 * gap if robot.period_ns else float(gap)
        robot.heard_ns = now_ns
        older = self._waiting.get(key)
        turn = older.t_ns if older else now_ns
        self._waiting[key] = Waiting(key, observation, turn, now_ns)
        return older

    def wait_ns(self, now_ns: int) -> int | None:
        """How long to go on waiting before the next batch is taken: 0 if it is due, None if nobody waits."""
        if not self._waiting:
            return None
        if len(self._waiting) >= self._config.max_batch or not self._others_due(now_ns):
            return 0
        first = next(iter(self._waiting.values()))
        return max(0, first.t_ns + round(self._config.max_wait_s * 1e9) - now_ns)

    def take(self, now_ns: int, answer_ns: int) -> tuple[list[Waiting[K]], list[Waiting[K]]]:
        """The next batch, and those whose answer would come too late. answer_ns: what an answer takes, about."""
        limit_ns = round(self._config.max_age_s * 1e9)
        batch: list[Waiting[K]] = []
        late: list[Waiting[K]] = []
        while self._waiting and len(batch) < self._config.max_batch:
            _, item = self._waiting.popitem(last=False)
            (late if now_ns + answer_ns - item.arrived_ns > limit_ns else batch).append(item)
        return batch, late

    def _others_due(self, now_ns: int) -> bool:
        """Whether a robot that is not waiting is likely to ask before a batch has waited its time."""
        horizon = now_ns + self._config.max_wait_s * 1e9
        return any(
            key not in self._waiting
            and robot.period_ns > 0
            and robot.heard_ns + robot.period_ns <= horizon
            and now_ns - robot.heard_ns < DUE_WITHIN * robot.period_ns
            for key, robot in self._robots.items()
        )

    def _counts(self, key: K, robot: _Robot) -> bool:
        """Towards max_clients: one that asked only once and has its answer may never come again."""
        return robot.period_ns > 0 or key in self._waiting

    def _forget(self, now_ns: int) -> None:
        """Those not heard for long, and passers-by where they are many."""
        limit_ns = round(self._config.forget_client_s * 1e9)
        while self._robots and now_ns - next(iter(self._robots.values())).heard_ns > limit_ns:
            self._robots.popitem(last=False)
        if len(self._robots) > MOST_KNOWN:
            passers_by = (key for key, robot in self._robots.items() if not self._counts(key, robot))
            key = next(passers_by, None)
            if key is not None:
                del self._robots[key]
