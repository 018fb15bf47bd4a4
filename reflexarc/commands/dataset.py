"""`reflexarc dataset ACTION`: work on recorded sessions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from reflexarc.commands.options import JsonPath, console, write_json
from reflexarc.configs.errors import LogError


def repair(path: tyro.conf.Positional[Path], json: JsonPath = None) -> None:
    """Make logs whole that a crash, a power cut or a bad disk has left damaged; all that can be believed is kept.

    Example: reflexarc dataset repair runs/collect-20260101-120000

    A repaired log stays marked as cut, and the damaged file is kept beside it as NAME.mcap.damaged. The session's
    index is made anew. Logs that are whole are not touched.

    Args:
        path: an episode log, or a folder of them.
    """
    from rich.progress import track
    from rich.table import Table

    from reflexarc.datasets.repair import repair as repair_log
    from reflexarc.datasets.session import Session

    logs = [path] if path.is_file() else sorted(path.rglob("*.mcap"))
    if not logs:
        raise LogError(f"{path}: no episode log (.mcap) there")
    table = Table("log", "now", "messages", "missing", "what was wrong")
    figures: list[dict[str, Any]] = []
    for log in track(logs, "repairing", console=console, transient=True):
        try:
            done = repair_log(log)
            now, row = ("repaired" if done.reason else "whole"), (done.messages, done.lost, done.reason)
        except LogError as error:
            now, row = "not repaired", (0, 0, str(error).removeprefix(f"{log}: "))
        figures.append({"log": str(log), "now": now, "messages": row[0], "missing": row[1], "reason": row[2]})
        if now != "whole":
            table.add_row(log.name, now, str(row[0]), str(row[1]), row[2])
    if table.row_count:
        console.print(table)
    counts = {
        now: sum(item["now"] == now for item in figures) for now in ("whole", "repaired", "not repaired")
    }
    console.print(", ".join(f"{count} {now}" for now, count in counts.items()))
    write_json(json, figures)
    Session(path if path.is_dir() else path.parent)
    if counts["not repaired"]:
        raise LogError(f"{counts['not repaired']} of {len(logs)} logs could not be repaired")


DATASET_COMMANDS: dict[str, Callable[..., Any]] = {"repair": repair}


def dataset() -> None:
    """Work on recorded sessions: `reflexarc dataset --help` lists how."""
