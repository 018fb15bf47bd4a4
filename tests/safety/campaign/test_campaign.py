"""Ten million hostile commands to three robots: none leaves a limit, no accepted state cannot be braked from."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from contracts.campaign import CHUNK, run_campaign, summary

RECORD = "runs/safety-campaign-{seed}.jsonl"


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_no_sender_breaks_a_limit(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """Can be interrupted: finished chunks are in the record, and the next run with the same seed goes on."""
    option = request.config.getoption
    seed, commands = int(option("--seed", 0)), int(option("--commands", 10_000_000))
    record = Path(option("--campaign-record", "") or RECORD.format(seed=seed))
    outcomes, begun = [], time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}"),
        TimeRemainingColumn(),
    )
    with capsys.disabled(), Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("commands filtered", total=commands)
        for outcome in run_campaign(seed, commands, record, int(option("--workers", 2))):
            outcomes.append(outcome)
            progress.advance(bar, outcome["commands"])
    found = summary(outcomes) | {"seed": seed, "seconds_this_run": round(time.monotonic() - begun)}
    path = option("--campaign-json", "")
    if path:
        Path(path).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    with capsys.disabled():
        print(json.dumps(found, indent=2))
    assert found["violations"] == {}
    assert found["failed_stops"] == {}
    assert found["commands"] >= commands // CHUNK * CHUNK
    assert found["states_braked_from"] > commands / 1000
