"""Which episodes of a session are meant: criteria that all must hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from reflexarc.configs.errors import LogError, unknown
from reflexarc.datasets.format import HUMAN
from reflexarc.datasets.summary import EpisodeSummary, Progress, limited_ticks, silent, verdict


@dataclasses.dataclass(frozen=True, slots=True)
class Criteria:
    """Empty or None where nothing is asked. Of several values of one criterion any will do.

    success: `true`, `false`, `unjudged`. sources: who was in control at some time; `human` is whoever held a teleop
    device. max_takeovers: how often at most a person took the arm from somebody. max_interventions: in how many ticks
    at most safety changed a command.
    """

    tasks: tuple[str, ...] = ()
    instructions: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    success: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    min_seconds: float | None = None
    max_seconds: float | None = None
    max_takeovers: int | None = None
    max_interventions: int | None = None
    is_cut: bool | None = None


def choose(
    episodes: Sequence[EpisodeSummary], criteria: Criteria, progress: Progress = silent
) -> list[EpisodeSummary]:
    """Those that meet all criteria, in their order.

    Raises LogError naming a task, instruction, policy or source that no episode has, a bound below 0, or bounds that
    contradict each other.
    """
    _check_known("task", criteria.tasks, (each.task for each in episodes))
    _check_known("instruction", criteria.instructions, (each.instruction for each in episodes))
    _check_known("policy", criteria.policies, (each.policy for each in episodes))
    _check_known("source", criteria.sources, (name for each in episodes for name in _sources(each)))
    _check_bounds(criteria)
    chosen = {each.log: each for each in episodes if _meets(each, criteria)}
    if criteria.max_interventions is not None:  # last, because whole logs are read for it
        most = criteria.max_interventions
        return [chosen[log] for log in progress(list(chosen), "counting") if limited_ticks(log) <= most]
    return list(chosen.values())


def _meets(episode: EpisodeSummary, criteria: Criteria) -> bool:
    """Whether an episode meets all criteria that its summary decides."""
    return bool(
        (not criteria.tasks or episode.task in criteria.tasks)
        and (not criteria.instructions or episode.instruction in criteria.instructions)
        and (not criteria.policies or episode.policy in criteria.policies)
        and (not criteria.success or verdict(episode.success) in criteria.success)
        and (not criteria.sources or _sources(episode) & {*criteria.sources})
        and (criteria.min_seconds is None or episode.seconds >= criteria.min_seconds)
        and (criteria.max_seconds is None or episode.seconds <= criteria.max_seconds)
        and (criteria.max_takeovers is None or episode.takeovers <= criteria.max_takeovers)
        and (criteria.is_cut is None or episode.is_cut == criteria.is_cut)
    )


def _sources(episode: EpisodeSummary) -> set[str]:
    """Who was in control, a person by either name."""
    return {*episode.sources} | ({"human"} if HUMAN in episode.sources else set())


def _check_known(kind: str, asked: Iterable[str], known: Iterable[str]) -> None:
    names = set(known)
    for name in asked:
        if name not in names:
            raise LogError(unknown(kind, name, names))


def _check_bounds(criteria: Criteria) -> None:
    for name in ("min_seconds", "max_seconds", "max_takeovers", "max_interventions"):
        value = getattr(criteria, name)
        if value is not None and not value >= 0:  # NaN neither
            raise LogError(f"{name} is {value}; must be at least 0")
    low, high = criteria.min_seconds, criteria.max_seconds
    if low is not None and high is not None and low > high:
        raise LogError(f"min_seconds {low} is above max_seconds {high}; no episode can be that long")
