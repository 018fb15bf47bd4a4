"""`reflexarc view`: an episode as a video and as a Rerun recording, or a running robot as it moves."""

from __future__ import annotations

from pathlib import Path

import tyro

from reflexarc.commands.options import JsonPath, console, fresh_folder, write_json
from reflexarc.configs.errors import LogError
from reflexarc.wire.endpoints import BASE_PORT


def view(
    log: tyro.conf.Positional[tuple[Path, ...]] = (),
    out: Path | None = None,
    camera: str = "",
    size: int = 360,
    at: float | None = None,
    spawn: bool = False,
    live: bool = False,
    connect: str = "",
    port: int = BASE_PORT,
    arm: str = "panda",
    seconds: float = float("inf"),
    json: JsonPath = None,
) -> None:
    """Make an .mp4, thumbnails and a Rerun .rrd of logged episodes, or show a running robot; `rerun FILE.rrd` opens it.

    Example: reflexarc view runs/demo-*/episodes/*.mcap --out runs/view

    What happened at 3.2 s: reflexarc view LOG.mcap --at 3.2 --spawn

    A robot that is running, in a viewer on another computer: reflexarc view --live --connect
    rerun+http://desk:9876/proxy

    Args:
        log: episode logs.
        out: folder to write into.
        camera: that the video shows; `front` if none is named, or the log's first where it has no such.
        size: of the video, pixels.
        at: only what is around this instant, seconds on the time line.
        spawn: open Rerun's viewer; of a log, until it is closed.
        live: show the run at `port` until Ctrl-C, instead of a log; recorded as .rrd unless it goes to a viewer.
        connect: with `live`: address of a viewer (`rerun`) or server (`rerun --serve-grpc`) elsewhere.
        port: with `live`: first port of the run.
        arm: with `live`: preset or file of the robot, for its shape.
        seconds: with `live`: how long.
    """
    if live:
        if log or at is not None or (spawn and connect):
            raise LogError("--live takes no log and no --at, and one of --spawn and --connect at most")
        with fresh_folder("view", out) as folder:
            follow(folder / "live.rrd", spawn, connect, port, arm, seconds)
        return
    from reflexarc.view import open_viewer, view_episode

    if not log:
        raise LogError("name at least one episode log (.mcap) to view, or --live")
    if connect:
        raise LogError("--connect is for --live; a log's recording is a file")
    figures = []
    with fresh_folder("view", out) as folder:
        for path in log:
            made = view_episode(path, folder, camera=camera, size=size, at_s=at)
            console.print(f"{path.name}: {made['mp4']}  {made['rrd']}  {made['png']}")
            figures.append({"log": str(path), **made})
            if at is not None:
                console.print(f"look at {at:.2f} s on the time line (marked)")
    write_json(json, figures)
    if spawn:
        open_viewer(*(Path(each["rrd"]) for each in figures))


def follow(recording: Path, spawn: bool, connect: str, port: int, arm: str, seconds: float) -> None:
    """Show a running robot until the time is over or Ctrl-C, which is its usual end."""
    from reflexarc.configs.load import load_robot
    from reflexarc.live_view import LiveView, Sink
    from reflexarc.wire.endpoints import Endpoints

    sink = Sink(file=None if spawn or connect else recording, connect=connect, spawn=spawn)
    with LiveView(Endpoints(base_port=port), load_robot(arm), sink) as live:
        console.print(f"showing the robot at port {port} {sink.where}; Ctrl-C ends it")
        shown = live.run(seconds)
    console.print(f"{shown} messages shown {sink.where}")
