"""`reflexarc dataset lint`: find the bad episodes of a session."""

from __future__ import annotations

import os
from pathlib import Path

import tyro

from reflexarc.commands.options import JsonPath, console, write_json
from reflexarc.configs.errors import LogError

_EPISODES_A_WORKER = 20
"""A process takes as long to start as it takes to read this many episodes."""


def lint(
    session: tyro.conf.Positional[Path],
    /,
    html: Path | None = None,
    recordings: bool = True,
    workers: int = os.cpu_count() or 1,
    json: JsonPath = None,
) -> None:
    """Find what is wrong with recorded episodes: pictures, clocks, lags, grippers, jumps, copies, outliers.

    Example: reflexarc dataset lint runs/lift --html runs/lift-lint.html

    Nothing in the session is changed. Fails where there is an error; warnings are for a person to look at.
    docs/data.md lists the rules, their limits and why they are what they are.

    Args:
        session: a folder of episode logs.
        html: also write a report with pictures and plots of every finding, one file that needs no network.
        recordings: with `html`: also a Rerun recording of what is around each finding, to which the report links, in a
            folder beside it.
        workers: processes.
    """
    from rich.table import Table

    from reflexarc.datasets.lint.findings import RULES
    from reflexarc.datasets.lint.run import lint_session
    from reflexarc.pool import run_jobs

    report = lint_session(
        session,
        lambda work, jobs: (
            done
            for _, done in run_jobs(
                work, jobs, workers=min(workers, 1 + len(jobs) // _EPISODES_A_WORKER), title="reading"
            )
        ),
    )
    table = Table("rule", "", "episodes", "the first of them")
    for rule, count in report.counts().items():
        if count:
            first = next(item for item in report.findings if item.rule == rule)
            where = f"{first.episode} at {first.time_s:.2f} s: {first.text}"
            table.add_row(rule, RULES[rule].severity, str(count), where)
    if table.row_count:
        console.print(table)
    if report.not_compared:
        tasks = ", ".join(task or "without a name" for task in report.not_compared)
        console.print(f"too few successes to tell what is unlike them: {tasks}")
    console.print(f"{len(report.entries)} episodes: {report.errors} errors, {report.warnings} warnings")
    write_json(json, report.figures())
    if html is not None:
        from reflexarc.datasets.lint.report import Recordings, write_html

        recorded = Recordings(html) if recordings else None
        write_html(report, html, recorded)
        console.print(f"report: {html}")
        if recorded is not None and recorded.made:
            size = sum(path.stat().st_size for path in recorded.made)
            console.print(f"{len(recorded.made)} Rerun recordings, {size / 1e6:.1f} MB: {recorded.folder}")
    if report.errors:
        bad = len({item.episode for item in report.findings if item.severity == "error"})
        raise LogError(f"{session}: {report.errors} errors in {bad} of {len(report.entries)} episodes")
