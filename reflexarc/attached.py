"""A robot host that runs already: whether a simulated arm is behind it, and what may be recorded there."""

from __future__ import annotations

import re
import time

from reflexarc.configs.errors import ConfigError, RobotError, WireError
from reflexarc.stack import READY_S
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import HostReply, HostRequest, SimAnswer, SimQuery
from reflexarc.wire.sockets import Requester

ASK_S = 2.0
"""How long an answer is waited for; both loops answer within a tick."""


def is_simulated(endpoints: Endpoints, *, wait_s: float = READY_S) -> bool:
    """Whether the running host's arm is simulated: its arm process answers, which has to run before its host does.

    Raises RobotError if no host answers within `wait_s`.
    """
    deadline = time.monotonic() + wait_s
    while not _answers(endpoints):
        if time.monotonic() > deadline:
            raise RobotError(
                f"no robot host answers at {endpoints.console} within {wait_s:.0f} s; "
                f"is `reflexarc robot` running there? name its --port"
            )
    with Requester(endpoints.sim, SimAnswer, name="simulated arm") as arm:
        try:
            return arm.request(SimQuery(t_ns=monotonic_ns(), query="success", seq=0), ASK_S).ok
        except WireError:
            return False


def check_task(task: str, instruction: str, *, simulated: bool) -> None:
    """Whether episodes of `task` can be recorded: a simulated arm lays out what the suite knows and has words for it;
    on another arm a person does, and the task is a name for files.

    Raises SimulationError for a task that the suite lacks, ConfigError for one without words or with a bad name.
    """
    if simulated:
        from reflexarc.sim.tasks import get_task

        get_task(task)
        return
    if not instruction.strip():
        raise ConfigError(
            "the arm is not simulated, so nobody else knows what the episodes show; say it with --instruction"
        )
    if not re.fullmatch(r"[A-Za-z0-9_-]+", task):
        raise ConfigError(
            f"task {task!r} cannot name files; use letters, digits, - and _, and say the rest with --instruction"
        )


def _answers(endpoints: Endpoints) -> bool:
    with Requester(endpoints.console, HostReply, name="host console") as host:
        try:
            host.request(HostRequest(t_ns=monotonic_ns(), action="status", seq=0), ASK_S)
        except WireError:
            return False
    return True
