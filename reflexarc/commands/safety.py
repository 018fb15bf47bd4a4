"""`reflexarc safety report LOG`: what safety did in an episode."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro
from rich.table import Table

from reflexarc.commands.options import JsonPath, console, write_json
from reflexarc.configs.errors import LogError


def safety(
    what: tyro.conf.Positional[Literal["report"]],
    log: tyro.conf.Positional[tuple[Path, ...]],
    /,
    picture: Path | None = None,
    json: JsonPath = None,
) -> None:
    """Every clamp and stop of logged episodes: rule, what was asked and allowed, when, and how often.

    Example: reflexarc safety report runs/demo-*/episodes/*.mcap --picture runs/safety

    Args:
        what: report.
        log: episode logs.
        picture: folder for a timeline (PNG) of each.
    """
    from reflexarc.audit import audit, draw

    if not log:
        raise LogError("name at least one episode log (.mcap) to report on")
    figures = []
    for path in log:
        found = audit(path)
        share = found.limited / found.ticks
        console.print(
            f"[bold]{found.episode}[/]: {found.seconds:.1f} s, {found.ticks} ticks, {found.limited} limited "
            f"({share:.1%}), limits {found.limits[:12]}"
        )
        states = ", ".join(f"{state} {time_s:.1f} s" for state, time_s in found.in_state.items())
        console.print(f"  {states}")
        table = Table("rule", "ticks", "rate", "first at", "mostly", "worst at", "asked", "allowed")
        for row in found.rules():
            table.add_row(
                row["rule"],
                str(row["ticks"]),
                f"{row['rate']:.2%}",
                f"{row['first_s']:.2f} s",
                row["field"],
                f"{row['worst_s']:.2f} s",
                f"{row['asked']:.4g}",
                f"{row['allowed']:.4g}",
            )
        if found.entries:
            console.print(table)
        for change in found.changes:
            console.print(
                f"  {change.time_s:8.3f} s  {change.state or '·':15}  {change.reason}", markup=False
            )
        if picture is not None:
            picture.mkdir(parents=True, exist_ok=True)
            file = picture / f"{found.episode}.png"
            draw(found, file)
            console.print(f"  timeline: {file}")
        figures.append(found.figures())
    write_json(json, figures)
