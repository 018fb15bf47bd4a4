"""The demo: every process of the stack, in real time, one episode of each task, and something to look at afterwards."""

from __future__ import annotations

import dataclasses
import functools
import operator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from reflexarc.collect import EVALUATION_SEED_BASE
from reflexarc.processes import Processes
from reflexarc.runner import EpisodeFigures, Runner
from reflexarc.setup import Setup
from reflexarc.stack import (
    READY_S,
    free_endpoints,
    start_controller,
    start_recorder,
    start_server,
    start_simulated_robot,
)

DEMO_SEED = 900_000
"""Offset of the demo's layouts among the evaluation seeds."""


@dataclasses.dataclass(frozen=True, slots=True)
class DemoResult:
    """Figures of the episodes and the loops, and the paths of what was made."""

    episodes: list[EpisodeFigures]
    loops: dict[str, dict[str, Any]]
    files: dict[str, Any]


def run_demo(
    policy: str, tasks: tuple[str, ...], *, seed: int, out: Path, setup: Setup, port: int, console: Console
) -> DemoResult:
    """Start everything, run one episode of each task, stop everything, draw the pictures.

    Raises RobotError naming a process that died, with the last line it wrote.
    """
    from reflexarc.sim.tasks import get_task

    endpoints = free_endpoints(port)
    with Processes(out / "processes") as processes:
        with console.status("starting policy server, arm, cameras, host, controller, recorder"):
            start_server(processes, endpoints, policy)
            robot = start_simulated_robot(processes, endpoints, setup, tasks[0])
            start_controller(processes, endpoints, setup)
            start_recorder(processes, endpoints, out / "episodes", setup.recording)
            runner = Runner(endpoints, ("policy", *robot, "controller", "recorder"))
            runner.wait_ready(READY_S, processes.check)
        figures = []
        try:
            for index, task in enumerate(tasks):
                number = EVALUATION_SEED_BASE + DEMO_SEED + seed + index
                with console.status(f"{task} in real time"):
                    result = runner.episode(
                        f"{index + 1}-{task}",
                        task=task,
                        seed=number,
                        time_limit_s=get_task(task).time_limit_s,
                        metadata=setup.metadata(task=task, seed=number, policy=policy, clock="monotonic"),
                        check=processes.check,
                        reset_protective_stop=True,
                    )
                console.print(f'  "{result.instruction}": {result.end} after {result.time_s:.1f} s')
                if result.unrecorded:
                    console.print(f"  {result.unrecorded}", style="red", markup=False)
                figures.append(result)
            loops = runner.loops()
        finally:
            runner.close()
    with console.status("drawing the video, the contact sheet and the Rerun recordings"):
        files = draw(out, figures)
    return DemoResult(figures, loops, files)


def draw(out: Path, figures: list[EpisodeFigures]) -> dict[str, Any]:
    """`contact_sheet.png`, `demo.mp4` and one `.rrd` an episode from the logs in `out/episodes`."""
    from reflexarc.datasets.reader import EpisodeReader
    from reflexarc.datasets.rerun_view import write_rrd
    from reflexarc.datasets.video import SheetRow, contact_sheet, write_mp4
    from reflexarc.view import episode_frames

    rows, recordings = [], []
    for item in figures:
        reader = EpisodeReader(out / "episodes" / f"{item.episode}.mcap")
        frames = episode_frames(reader)
        rows.append(SheetRow(item.instruction, frames, item.success, f"{item.time_s:.1f} s"))
        recording = out / f"{item.episode}.rrd"
        write_rrd(reader, recording)
        recordings.append(str(recording))
    sheet, video = out / "contact_sheet.png", out / "demo.mp4"
    contact_sheet(rows, sheet)
    write_mp4(functools.reduce(operator.iadd, (list(row.frames) for row in rows), []), video, 20.0)
    return {
        "contact_sheet": str(sheet),
        "video": str(video),
        "recordings": recordings,
        "episodes": [str(out / "episodes" / f"{item.episode}.mcap") for item in figures],
    }


def print_tables(console: Console, result: DemoResult) -> None:
    """Episodes, then loops."""
    table = Table(title="episodes, in real time; safety: host ticks in which a rule limited the command")
    for name in (
        "task",
        "instruction",
        "success",
        "time",
        "policy",
        "latency p50 / max",
        "limited by safety",
    ):
        words = name in ("task", "instruction", "limited by safety")
        table.add_column(name, justify="left" if words else "right", overflow="fold")
    for item in result.episodes:
        limited = "\n".join(f"{rule} {count}" for rule, count in sorted(item.limited.items()))
        table.add_row(
            item.task,
            item.instruction,
            "[green]yes[/]" if item.success else f"[red]no[/] ({item.end})",
            f"{item.time_s:.1f} s",
            f"{item.policy_hz:.1f} Hz",
            f"{item.latency_ms_p50:.0f} / {item.latency_ms_max:.0f} ms",
            limited or "nothing",
        )
    console.print(table)
    loops = Table(title="loops: lateness of their ticks")
    for name in ("loop", "ticks", "late (over half a period)", "p50", "p99", "max", "work p99"):
        loops.add_column(name, justify="left" if name == "loop" else "right")
    for name, row in result.loops.items():
        count = max(1, int(row.get("count", 0)))
        loops.add_row(
            name,
            str(row.get("count", 0)),
            f"{row.get('late', 0)} ({row.get('late', 0) / count:.2%})",
            *(f"{row.get(key, 0.0):.0f} µs" for key in ("p50_us", "p99_us", "max_us", "work_p99_us")),
        )
    console.print(loops)
