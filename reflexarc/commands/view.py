"""`reflexarc view`: an episode as a video and as a Rerun recording."""

from __future__ import annotations

from pathlib import Path

import tyro

from reflexarc.commands.options import JsonPath, console, run_folder, write_json
from reflexarc.configs.errors import LogError


def view(
    log: tyro.conf.Positional[tuple[Path, ...]],
    out: Path | None = None,
    camera: str = "front",
    size: int = 360,
    json: JsonPath = None,
) -> None:
    """Make an .mp4 and a Rerun .rrd of logged episodes; open the latter with `rerun FILE.rrd`.

    Example: reflexarc view runs/demo-*/episodes/*.mcap --out runs/view

    Args:
        log: episode logs.
        out: folder to write into.
        camera: that the video shows.
        size: of the video, pixels.
    """
    from reflexarc.view import view_episode

    if not log:
        raise LogError("name at least one episode log (.mcap) to view")
    folder = run_folder("view", out)
    figures = []
    for path in log:
        made = view_episode(path, folder, camera=camera, size=size)
        console.print(f"{path.name}: {made['mp4']}  {made['rrd']}")
        figures.append({"log": str(path), **made})
    write_json(json, figures)
