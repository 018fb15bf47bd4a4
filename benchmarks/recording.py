"""What recording costs: the loops that run beside it, and lerobot's own recording path on the same frames.

Beside the loops: two cameras of 480x640 at 30 Hz, states at 200 Hz and commands at 200 Hz, in real processes:
simulated arm, robot host, monitor, a controller that is steered by a scripted device, cameras that play pictures of the
arm rendered beforehand (with a sensor's noise, encoded as they are taken). Each round runs all of that with the
recorder and without, in turns. Every message that was published must stand in the log, and ticks of the controller that
are late (by more than half a period) must not become more than 1.2 times as many, nor more than 6 of none. `--minutes
10` is one long recording instead.

Against lerobot (`recording_paths.py`): frames/s, processor time, bytes, what is lost, how long an episode takes to end.

Prints tables, writes JSON; exits with 1 if a message is missing, a log was not ended, or too many ticks are late.

Example: python benchmarks/recording.py --rounds 5 --seconds 60 --json runs/recording.json
The long one: python benchmarks/recording.py --minutes 10 --json runs/recording-long.json
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import multiprocessing
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
from demonstrations import CAMERAS, VGA, moving_pictures
from numpy.typing import NDArray
from recording_paths import PATHS, Recorded, run_path
from rich.console import Console
from rich.table import Table
from stack_runs import LOOPS, late_share, process_cpu_s, run_episodes, stolen_s

from reflexarc.controllers.steering import steering_spec
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.session import Session
from reflexarc.processes import Processes
from reflexarc.robots.teleop.stream import run_teleop
from reflexarc.runner import Runner
from reflexarc.setup import Setup, load_setup
from reflexarc.stack import READY_S, free_endpoints, start_controller, start_recorder, start_simulated_robot
from reflexarc.wire.clock import give_way_to_loops, monotonic_ns
from reflexarc.wire.codec import decode
from reflexarc.wire.contracts import TeleopInput
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import ImageEncoding, TeleopKey
from reflexarc.wire.sockets import Heartbeats, Publisher

RATE_HZ = 30.0
TASK = "lift"
PICTURES = 120
"""Of each camera; played again and again."""
LATE_RATIO = 1.2
"""The bar: late ticks with recording over those without."""
LATE_BY_CHANCE = 6
"""Late ticks with recording that pass where there is none without. If recording makes 1.2 times as many, each of n
falls into a run with it by 1.2 in 2.2, and all of them do with a chance of (1.2 / 2.2)**n: below 2.5% from 7 on."""
SETTLED_S = 3.0
TELEOP_HZ = 50.0
CIRCLE_M_PER_S, CIRCLE_S = 0.08, 3.0


class Circling:
    """A teleoperation device that nobody holds: the tool goes round in a circle."""

    def connect(self) -> None:
        """The circle begins."""
        self._begun_s = time.monotonic()

    def read(self) -> TeleopInput:
        """Its direction now."""
        angle = 2 * np.pi * (time.monotonic() - self._begun_s) / CIRCLE_S
        motion = np.array([np.cos(angle), np.sin(angle), 0.0, 0.0, 0.0, 0.0]) * CIRCLE_M_PER_S
        return TeleopInput(motion=motion)

    def keys(self) -> tuple[TeleopKey, ...]:
        """None."""
        return ()

    def close(self) -> None:
        """Nothing is open."""


def play(pictures: Path, encoding: ImageEncoding, endpoints: Endpoints) -> None:
    """Publish the pictures in `pictures` at `RATE_HZ` in place of the renderer, until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    taken = load(pictures)
    give_way_to_loops()
    begun, seq = monotonic_ns(), 0
    with Publisher(endpoints.frames, name="pictures") as out:
        heartbeats = Heartbeats(endpoints.heartbeat, "cameras")
        while not stop.is_set():
            # No picture is skipped when this process gets its turn late: a camera would have taken it.
            taken_ns = begun + round(seq * 1e9 / RATE_HZ)
            time.sleep(max(0.0, (taken_ns - monotonic_ns()) * 1e-9))
            for camera, each in taken.items():
                image = each[seq % len(each)]
                out.send(
                    encode_image(image, camera=camera, seq=seq, t_capture_ns=taken_ns, encoding=encoding)
                )
            seq += 1
            heartbeats.beat(monotonic_ns())
        heartbeats.close()


def load(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """The pictures (N, H, W, 3) by camera."""
    return {path.stem: np.load(path) for path in sorted(folder.glob("*.npy"))}


def run_stack(
    setup: Setup, seconds: float, folder: Path, pictures: Path, encoding: ImageEncoding, *, recorded: bool
) -> dict[str, Any]:
    """All processes for `seconds`, the recorder among them or not; figures by loop, and of what was logged."""
    endpoints = free_endpoints()
    with Processes(folder / "processes") as processes:
        cameras = functools.partial(play, pictures, encoding)
        robot = start_simulated_robot(processes, endpoints, setup, TASK, cameras=cameras)
        processes.start("teleop", run_teleop, Circling(), "circling", TELEOP_HZ, endpoints)
        start_controller(processes, endpoints, setup, steering_spec(setup.robot, joints=False))
        peers = ("teleop", *robot, "controller")
        if recorded:
            start_recorder(processes, endpoints, folder / "episodes")
            peers += ("recorder",)
        runner = Runner(endpoints, peers)
        try:
            runner.wait_ready(READY_S, processes.check)
            measured = [name for name in ("cameras", "recorder") if name in peers]
            # What starting costs is not what recording costs: ticks are counted from here on.
            runner.episode("settled", task=TASK, time_limit_s=SETTLED_S, metadata="{}", check=processes.check)
            before, stolen = runner.loops(), stolen_s()
            used = {name: process_cpu_s(processes.pid(name)) for name in measured}
            episodes = run_episodes(runner, TASK, seconds, seconds, processes.check)
            cpu = {name: process_cpu_s(processes.pid(name)) - earlier for name, earlier in used.items()}
            loops = runner.loops()
        finally:
            runner.close()
    active_s = sum(item.time_s for item in episodes)
    figures: dict[str, Any] = {
        "loops": {
            name: {key: loops[name][key] - before[name][key] for key in ("count", "late")} for name in LOOPS
        },
        "seconds": active_s,
        "cpu_s_per_minute": {name: 60 * each / active_s for name, each in cpu.items()},
        "stolen_s": stolen_s() - stolen,
        "stops": [item.end for item in episodes if item.end not in ("success", "time limit")],
    }
    if recorded:
        figures["log"] = logged(folder / "episodes")
        shutil.rmtree(folder / "episodes")
    return figures


def logged(folder: Path) -> dict[str, Any]:
    """What stands in the logs of a run: messages a second and missing ones by topic, drops counted, bytes a minute.

    missing: by the numbers and times that are there, or as many as the recorder itself says. lost: those, and whatever
    else the recorder says of other topics.
    """
    seconds, size, dropped, elsewhere = 0.0, 0, 0, 0
    faults: list[str] = []
    names = ["/state", "/setpoint", *(f"/camera/{camera}" for camera in CAMERAS)]
    counts = dict.fromkeys(names, 0)
    missing = dict.fromkeys(names, 0)
    for entry in Session(folder).episodes:
        reader = EpisodeReader(folder / entry.file)
        stood: dict[str, list[tuple[int, int, int]]] = {name: [] for name in names}
        times_ns: list[int] = []
        for raw in reader.raw_messages([*names, "/episode"]):
            message = decode(raw.data)
            times_ns.append(message.t_ns)
            if raw.topic in stood:
                number: int = message.seq  # type: ignore[attr-defined]
                stood[raw.topic].append((number, message.t_ns, raw.log_time_ns))
        outcome = reader.outcome or {}
        if reader.is_cut or "error" in outcome:
            faults.append(f"{entry.file}: {outcome.get('error', 'the recorder has not closed it')}")
        told = Counter[str]()
        for kind in ("dropped", "never_arrived", "refused"):
            told.update(outcome.get(kind, {}))
        dropped += sum(outcome.get("dropped", {}).values())
        elsewhere += sum(count for topic, count in told.items() if topic not in stood)
        states = stood["/state"]
        seconds += (states[-1][1] - states[0][1]) * 1e-9 if states else 0.0
        size += (folder / entry.file).stat().st_size
        for name, each in stood.items():
            counts[name] += len(each)
            missing[name] += max(absent(each, times_ns[0], times_ns[-1]), told[name])
    seconds = max(seconds, 1e-9)
    return {
        "rate_hz": {name: count / seconds for name, count in counts.items()},
        "missing": missing,
        "lost": sum(missing.values()) + elsewhere,
        "dropped": dropped,
        "faults": faults,
        "mb_per_minute": size / seconds * 60e-6,
    }


def absent(stood: Sequence[tuple[int, int, int]], begin_ns: int, end_ns: int) -> int:
    """How many messages of a topic are not in a log of these ends. stood: (number, made, received) of those that are.

    Between the first and the last their numbers tell. Before and after, messages are missing where there is none for
    longer than between any two that are there and than any was on its way: as many as usually come in that time.
    """
    if len(stood) < 2:
        return int(not stood or end_ns > begin_ns)
    numbers, made_ns, received_ns = np.array(stood).T
    between_ns = np.diff(made_ns) / np.maximum(np.diff(numbers), 1)
    allowed_ns = between_ns.max() + (received_ns - made_ns).max()
    usual_ns = (made_ns[-1] - made_ns[0]) / (numbers[-1] - numbers[0])
    edges_ns = (made_ns[0] - begin_ns, end_ns - made_ns[-1])
    outside = sum(int(edge_ns // usual_ns) for edge_ns in edges_ns if edge_ns > allowed_ns)
    return int(numbers[-1] - numbers[0] + 1 - len(stood)) + outside


def compare(pictures: Path, seconds: float, times: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Every path on the same rows, in turns, each run in a fresh process; medians."""
    rows = round(seconds * RATE_HZ)
    found: dict[str, dict[str, list[Recorded]]] = {path: {"paced": [], "unpaced": []} for path in PATHS}
    for turn in range(times):
        for path in PATHS if turn % 2 == 0 else reversed(PATHS):
            for kind in ("paced", "unpaced"):
                with (
                    tempfile.TemporaryDirectory(dir=folder) as place,
                    ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
                ):
                    job = pool.submit(_run_path, path, pictures, rows, Path(place), kind == "paced")
                    found[path][kind].append(job.result())
    return {path: _summary(kinds["paced"], kinds["unpaced"]) for path, kinds in found.items()}


def _run_path(path: str, pictures: Path, rows: int, folder: Path, paced: bool) -> Recorded:
    return run_path(path, load(pictures), rows, RATE_HZ, folder, paced=paced)


def _summary(paced: Sequence[Recorded], unpaced: Sequence[Recorded]) -> dict[str, Any]:
    minutes = paced[0].rows / RATE_HZ / 60
    return {
        "frames_per_s": statistics.median(each.rows / each.wall_s for each in paced),
        "lost": sum(each.lost for each in paced),
        "of": sum(each.pictures for each in paced),
        "cpu_s_per_minute": statistics.median(each.cpu_s for each in paced) / minutes,
        "mb_per_minute": statistics.median(each.size for each in paced) / minutes * 1e-6,
        "finish_s": statistics.median(each.finish_s for each in paced),
        "most_frames_per_s": statistics.median(each.rows / (each.wall_s + each.finish_s) for each in unpaced),
        "runs": {
            kind: [dataclasses.asdict(each) for each in runs]
            for kind, runs in (("paced", paced), ("unpaced", unpaced))
        },
    }


def show_loops(
    console: Console, without: Sequence[dict[str, Any]], recorded: Sequence[dict[str, Any]]
) -> dict[str, float | None]:
    """The table of the loops; the ratio of each, None where nothing was late without recording."""
    table = Table(title=f"late ticks, {len(recorded)} runs of {recorded[0]['seconds']:.0f} s each, in turns")
    for column in ("loop", "without recording", "recording", "ratio", "95% of it"):
        table.add_column(column, justify="left" if column == "loop" else "right")
    ratios: dict[str, float | None] = {}
    for name in LOOPS:
        rows = [[run["loops"][name] for run in runs] for runs in (without, recorded)]
        before, after = (late_share(each) for each in rows)
        ratios[name] = after / before if before else None
        told = [f"{late_share(each):.3%} ({sum(row['late'] for row in each)})" for each in rows]
        table.add_row(name, *told, f"{after / before:.2f}" if before else "none before", spread(*rows))
    console.print(table)
    return ratios


def too_late(without: Sequence[dict[str, Any]], recorded: Sequence[dict[str, Any]]) -> str:
    """What is to be said of the controller's late ticks; empty if recording makes no more than it may."""
    rows = [[run["loops"]["controller"] for run in runs] for runs in (without, recorded)]
    before, after = (late_share(each) for each in rows)
    late = sum(int(row["late"]) for row in rows[1])
    if not before:
        text = f"{late} late ticks of the controller, none without recording; limit {LATE_BY_CHANCE}"
        return text if late > LATE_BY_CHANCE else ""
    text = f"late ticks of the controller {after / before:.2f} times, limit {LATE_RATIO}"
    return text if after / before > LATE_RATIO else ""


def spread(without: Sequence[dict[str, Any]], recorded: Sequence[dict[str, Any]]) -> str:
    """Where the ratio of two counts of rare events may lie with 95%, by Katz's logarithmic interval (1978)."""
    before, after = (sum(int(row["late"]) for row in each) for each in (without, recorded))
    if not before or not after:
        return "-"
    width = 1.96 * math.sqrt(1 / before + 1 / after)
    ratio = late_share(list(recorded)) / late_share(list(without))
    return f"{ratio * math.exp(-width):.2f} to {ratio * math.exp(width):.2f}"


def show_log(console: Console, runs: Sequence[dict[str, Any]]) -> int:
    """What was recorded; how many messages are not in the logs."""
    log = runs[-1]["log"]
    lost: int = sum(run["log"]["lost"] for run in runs)
    rates = ", ".join(f"{name} {rate:.1f} Hz" for name, rate in log["rate_hz"].items())
    used = {
        name: statistics.median(run["cpu_s_per_minute"][name] for run in runs)
        for name in ("cameras", "recorder")
    }
    console.print(f"recorded: {rates}")
    console.print(
        f"missing or dropped: {lost} in {sum(run['seconds'] for run in runs):.0f} s; "
        f"{statistics.median(run['log']['mb_per_minute'] for run in runs):.0f} MB a minute; processor time a minute: "
        f"recorder {used['recorder']:.1f} s, cameras (encoding) {used['cameras']:.1f} s"
    )
    for fault in [fault for run in runs for fault in (*run["log"]["faults"], *run["stops"])]:
        console.print(f"  {fault}", markup=False)
    console.print(f"processor time taken by the machine below: {sum(run['stolen_s'] for run in runs):.1f} s")
    return lost


def show_paths(console: Console, paths: Mapping[str, dict[str, Any]]) -> None:
    """Ours against lerobot's."""
    table = Table(
        title="the same rows of two pictures: real time, and as fast as it goes (to the end of the episode)"
    )
    for column in ("path", "rows/s", "lost", "CPU s/min", "MB/min", "ends in s", "most rows/s"):
        table.add_column(column, justify="left" if column == "path" else "right")
    for path, row in paths.items():
        table.add_row(
            path,
            f"{row['frames_per_s']:.1f}",
            f"{row['lost']} of {row['of']}",
            f"{row['cpu_s_per_minute']:.1f}",
            f"{row['mb_per_minute']:.0f}",
            f"{row['finish_s']:.2f}",
            f"{row['most_frames_per_s']:.0f}",
        )
    console.print(table)


def main() -> int:
    """Run, print, write, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run, with and without recording")
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="one recording of so many, and nothing else"
    )
    parser.add_argument("--compared-seconds", type=float, default=30.0, help="of each run against lerobot")
    parser.add_argument("--comparisons", type=int, default=3, help="0: not against lerobot")
    parser.add_argument("--encoding", choices=("jpeg", "raw", "png"), default="jpeg", help="of the cameras")
    parser.add_argument("--json", type=Path, default=Path("runs/recording.json"))
    given = parser.parse_args()
    setup, console = load_setup(overrides=("controller.rate_hz=200",)), Console()
    folder = Path("runs") / f"recording-{time.strftime('%Y%m%d-%H%M%S')}"
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    with console.status("rendering the pictures"):
        for camera, taken in moving_pictures(TASK, PICTURES, RATE_HZ, VGA).items():
            np.save(pictures / camera, taken)
    run = functools.partial(run_stack, setup, pictures=pictures, encoding=given.encoding)
    results: dict[str, Any] = {"cores": os.cpu_count(), "encoding": given.encoding}
    failed: list[str] = []
    recorded: list[dict[str, Any]] = []
    without: list[dict[str, Any]] = []
    if given.minutes:
        recorded.append(run(given.minutes * 60, folder / "long", recorded=True))
    else:
        for number in range(given.rounds):
            for is_recorded in (False, True) if number % 2 == 0 else (True, False):
                name = folder / f"{number}-{'recorded' if is_recorded else 'without'}"
                (recorded if is_recorded else without).append(run(given.seconds, name, recorded=is_recorded))
            console.print(f"round {number + 1} of {given.rounds} done")
        ratios = show_loops(console, without, recorded)
        results |= {"without": without, "late_ratio": ratios}
        if text := too_late(without, recorded):
            failed.append(text)
    results["recorded"] = recorded
    if lost := show_log(console, recorded):
        failed.append(f"{lost} messages are missing")
    if unsound := sum(len(each["log"]["faults"]) for each in recorded):
        failed.append(f"{unsound} logs were not ended as they should be")
    if given.comparisons and not given.minutes:
        with console.status("lerobot's path and ours on the same rows"):
            results["paths"] = compare(pictures, given.compared_seconds, given.comparisons, folder)
        show_paths(console, results["paths"])
    shutil.rmtree(pictures)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(results, indent=1) + "\n")
    console.print(f"figures: {given.json}")
    for text in failed:
        console.print(text, style="red")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
