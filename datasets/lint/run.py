"""Lint a session: every log read once, judged by itself, then compared with the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reflexarc.configs.errors import LogError
from reflexarc.datasets.lint.compare import Judged, compare, too_few_peers
from reflexarc.datasets.lint.findings import RULES, Finding, finding, look_at
from reflexarc.datasets.lint.rules import check_episode
from reflexarc.datasets.lint.signals import outline, read_signals
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.session import EpisodeEntry, Session

LEFT_OUT = {
    "dropped": "the disk was too slow",
    "refused": "they could not be written",
    "never_arrived": "they were lost on the way to the recorder",
}
"""What a recorder counts in an outcome (see `recording`), and why."""


@dataclass(frozen=True, slots=True)
class EpisodeJob:
    """One log to be read and judged by itself."""

    folder: Path
    entry: EpisodeEntry


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """What one log gave: its findings, and what is kept to compare it; None of a log that cannot be read."""

    findings: tuple[Finding, ...]
    judged: Judged | None


Spread = Callable[[Callable[[EpisodeJob], EpisodeResult], Sequence[EpisodeJob]], Iterable[EpisodeResult]]
"""Does the work on every job, in any order: `map`, or over processes."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the lint of one session found.

    entries: every log of the session. findings: sorted by episode and time. not_compared: tasks with too few successes
    for the rule `outlier`.
    """

    folder: Path
    entries: tuple[EpisodeEntry, ...]
    findings: tuple[Finding, ...]
    not_compared: tuple[str, ...]

    @property
    def errors(self) -> int:
        """Findings that are errors."""
        return sum(item.severity == "error" for item in self.findings)

    @property
    def warnings(self) -> int:
        """Findings that are warnings."""
        return len(self.findings) - self.errors

    def counts(self) -> dict[str, int]:
        """Episodes by rule, in the order of the table; rules that found nothing are there with 0."""
        found = Counter(rule for rule, _ in {(item.rule, item.episode) for item in self.findings})
        return {rule: found[rule] for rule in RULES}

    def figures(self) -> dict[str, Any]:
        """JSON-ready; each finding with the command that shows it."""
        return {
            "session": str(self.folder),
            "episodes": len(self.entries),
            "errors": self.errors,
            "warnings": self.warnings,
            "episodes_by_rule": self.counts(),
            "tasks_with_too_few_successes_to_compare": list(self.not_compared),
            "findings": [asdict(item) | {"look": look_at(self.folder, item)} for item in self.findings],
        }


def lint_session(folder: Path, spread: Spread = map) -> Report:
    """Judge every log below `folder`; nothing there is changed but the session's index.

    Raises LogError if the folder does not exist or holds no log. A log that cannot be read is a finding.
    """
    session = Session(folder)
    if not session.episodes:
        raise LogError(f"{folder}: no episode log (.mcap) there")
    results = list(spread(check_log, [EpisodeJob(session.folder, entry) for entry in session.episodes]))
    judged = sorted((item.judged for item in results if item.judged), key=lambda item: item.episode)
    found = [item for result in results for item in result.findings] + compare(judged)
    found.sort(key=lambda item: (item.episode, item.time_s, item.rule))
    return Report(session.folder, session.episodes, tuple(found), tuple(too_few_peers(judged)))


def check_log(job: EpisodeJob) -> EpisodeResult:
    """Read one log and judge it by itself."""
    entry, path = job.entry, job.folder / job.entry.file
    try:
        if entry.error:
            raise LogError(entry.error)
        reader = EpisodeReader(path)
        signals = read_signals(reader)
    except LogError as error:
        text = f"{str(error).removeprefix(f'{path}: ')}: try `reflexarc dataset repair`, or delete it"
        return EpisodeResult((finding("unreadable", entry.file, 0.0, 1.0, text, signal=""),), None)
    end_s = float(signals.states.t[-1])
    found = (
        *_cut(entry, end_s),
        *_left_out(reader.outcome or {}, entry.file, end_s),
        *check_episode(signals, entry.file),
    )
    start = float(signals.states.t[0])
    return EpisodeResult(found, Judged(entry.file, entry.task, entry.success, start, outline(signals)))


def _cut(entry: EpisodeEntry, end_s: float) -> Iterator[Finding]:
    if entry.is_cut:
        text = "the recording was cut: repair it if that is not done yet; training and export leave it out"
        yield finding("cut_short", entry.file, end_s, 1.0, text, signal="states")


def _left_out(outcome: dict[str, Any], episode: str, end_s: float) -> Iterator[Finding]:
    """What the recorder says of itself at the end of a log; what is no count there says nothing."""
    for key, why in LEFT_OUT.items():
        said = outcome.get(key)
        counts = said.items() if isinstance(said, dict) else ()
        lost = {topic: count for topic, count in counts if isinstance(count, int) and count > 0}
        if not lost:
            continue
        text = (
            f"{sum(lost.values())} messages were left out, {why} ({', '.join(sorted(lost))}): look what is "
            "missing, leave the episode out if it matters"
        )
        yield finding("left_out", episode, end_s, sum(lost.values()), text, signal="states")
