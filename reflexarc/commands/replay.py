"""`reflexarc replay`: repeat a simulated episode from its log, to the bit."""

from __future__ import annotations

from pathlib import Path

import tyro

from reflexarc.commands.options import JsonPath, console, write_json
from reflexarc.configs.errors import LogError


def replay(log: tyro.conf.Positional[tuple[Path, ...]], json: JsonPath = None) -> None:
    """Re-simulate logged episodes from their initial state and controls, and compare with the logged states.

    Example: reflexarc replay runs/demo-*/episodes/*.mcap

    Args:
        log: episode logs.
    """
    from reflexarc.replay import replay as run_replay

    if not log:
        raise LogError("name at least one episode log (.mcap) to replay")
    figures = []
    for path in log:
        result = run_replay(path)
        error = "nothing to compare with" if result.max_qpos_error is None else f"{result.max_qpos_error:g}"
        console.print(f"{path.name}: {result.steps} physics steps, max |Δqpos| = {error} {result.note}")
        figures.append({"log": str(path), "steps": result.steps, "max_qpos_error": result.max_qpos_error})
    write_json(json, figures)
    if any(item["max_qpos_error"] for item in figures):
        raise LogError("a replay differs from its log; the same MuJoCo build and CPU type give 0")
