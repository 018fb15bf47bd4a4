"""Reading an exported data set for training: ours against lerobot's `LeRobotDataset`, on the same files, in turns.

Both are asked by torch's DataLoader for the same rows in the same batches: in order, shuffled, and shuffled with a
chunk of actions to every picture; in this process and with workers. Both decode with PyAV (lerobot's other decoder,
torchcodec, needs an FFmpeg of the system's) and give pictures as bytes (`return_uint8`, lerobot's fastest). Before
anything is timed the values of both are compared. Prints tables, writes JSON; exits with 1 if ours is slower anywhere.

Without `--data`, two data sets are made below runs/dataset_reading and kept: pictures of 96x96 and of 480x640.

Example: python benchmarks/dataset_reading.py --rows 1024 --rounds 5 --json runs/dataset_reading.json
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("SVT_LOG", "1")  # errors only
os.environ.setdefault("TQDM_DISABLE", "1")

import numpy as np
from demonstrations import CAMERAS, VGA, write_demonstrations
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils.data import BatchSampler, DataLoader, Dataset

from reflexarc.commands.dataset import quiet_lerobot
from reflexarc.configs.action import tcp_delta_spec
from reflexarc.datasets.lerobot_export import ACTION, IMAGE, export
from reflexarc.datasets.lerobot_reader import LeRobotReader

MADE = Path("runs/dataset_reading")
SIZES = {"96x96": (96, 96), "480x640": VGA}
EPISODES, TASKS = 10, ("lift", "push")
BATCH, CHUNK = 32, 16
CASES = ("in order", "shuffled", "shuffled + chunk")
SIDES = ("lerobot", "ours")
COMPARED = 100
"""Rows of each case whose values are compared."""


def make(name: str) -> Path:
    """A data set of demonstrations with pictures of one size."""
    folder = MADE / name
    if not folder.exists():
        for task in TASKS:
            write_demonstrations(MADE / f"{name}-logs", task, EPISODES, SIZES[name])
        export(
            MADE / f"{name}-logs",
            folder,
            tcp_delta_spec(1, 0.1),
            CAMERAS,
            progress=lambda entries: iter(track(entries, description=f"making {name}", transient=True)),
        )
    return folder


def open_theirs(folder: Path, case: str) -> LeRobotDataset:
    """lerobot's reader."""
    fps = json.loads((folder / "meta" / "info.json").read_text())["fps"]
    chunk = {ACTION: [step / fps for step in range(CHUNK)]} if "chunk" in case else None
    return LeRobotDataset("x/y", root=folder, video_backend="pyav", return_uint8=True, delta_timestamps=chunk)


def open_ours(folder: Path, case: str) -> LeRobotReader:
    """Our reader."""
    return LeRobotReader(folder, windows={ACTION: CHUNK} if "chunk" in case else None)


def order(case: str, total: int, rows: int) -> list[int]:
    """The rows that a case asks for."""
    wanted = min(rows, total)
    if case == "in order":
        return list(range(wanted))
    return [int(row) for row in np.random.default_rng(0).permutation(total)[:wanted]]


def loader(side: str, folder: Path, case: str, rows: Sequence[int], workers: int) -> DataLoader[Any]:
    """The same batches of tensors from either."""
    if side == "ours":
        batches = BatchSampler(rows, BATCH, drop_last=False)
        ours = cast(Dataset[Any], open_ours(folder, case))  # it is one by its methods; it needs no torch
        return DataLoader(ours, sampler=batches, batch_size=None, num_workers=workers)
    return DataLoader(open_theirs(folder, case), sampler=rows, batch_size=BATCH, num_workers=workers)


def compare(folder: Path, case: str) -> None:
    """Leave with a message if a value differs."""
    ours, theirs = open_ours(folder, case), open_theirs(folder, case)
    for row in order(case, len(ours), COMPARED):
        mine, other = ours[row], theirs[row]
        for name in other:
            if name == "task":
                equal = mine[name] == other[name]
            elif name.startswith(IMAGE):
                equal = np.array_equal(mine[name], other[name].numpy().transpose(1, 2, 0))
            else:  # lerobot's items make float32 of float64
                equal = np.array_equal(mine[name].astype(other[name].numpy().dtype), other[name].numpy())
            if not equal:
                sys.exit(f"{folder}: {name} of row {row} differs from lerobot's ({case})")


def cpu_s() -> float:
    """Processor seconds of this process and of the workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def run(side: str, folder: Path, case: str, rows: Sequence[int], workers: int) -> dict[str, float]:
    """Read all rows once from a reader just opened; opening is timed by itself."""
    gc.collect()
    begun = time.perf_counter()
    batches = loader(side, folder, case, rows, workers)
    opened, used = time.perf_counter(), cpu_s()
    count = sum(len(batch["task"]) for batch in batches)  # when it is done, workers have ended
    wall, used = time.perf_counter() - opened, cpu_s() - used
    assert count == len(rows)
    return {
        "open_s": opened - begun,
        "rows_per_s": count / wall,
        "cpu_ms_per_row": used / count * 1e3,
    }


def measure(folder: Path, rows: int, rounds: int, workers: Sequence[int]) -> list[dict[str, Any]]:
    """Medians of every case, sides in turns."""
    for case in CASES:
        compare(folder, case)
    cases = [(case, count) for case in CASES for count in workers]
    found: dict[tuple[str, int, str], list[dict[str, float]]] = {}
    total = len(open_ours(folder, ""))
    for turn in track(range(rounds), description=f"{folder.name}", transient=True):
        for case, count in cases:
            for side in SIDES if turn % 2 else reversed(SIDES):
                one = run(side, folder, case, order(case, total, rows), count)
                found.setdefault((case, count, side), []).append(one)
    figures = []
    for case, count in cases:
        row: dict[str, Any] = {"case": case, "workers": count}
        for side in SIDES:
            runs = found[case, count, side]
            row[side] = {name: statistics.median(each[name] for each in runs) for name in runs[0]}
            row[side]["runs"] = runs
        row["times_as_fast"] = row["ours"]["rows_per_s"] / row["lerobot"]["rows_per_s"]
        figures.append(row)
    return figures


def show(console: Console, folder: Path, figures: Sequence[dict[str, Any]], rounds: int) -> None:
    """The table of one data set."""
    info = json.loads((folder / "meta" / "info.json").read_text())
    video = next(each for name, each in info["features"].items() if name.startswith(IMAGE))
    shape = "x".join(str(side) for side in video["shape"][:2])
    codec = (video.get("info") or {}).get("video.codec", "png")
    table = Table(title=f"{folder.name}: two pictures of {shape} a row, {codec}; medians of {rounds}")
    for column in ("case", "workers", "lerobot rows/s", "ours rows/s", "times", "lerobot CPU ms/row", "ours"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for row in figures:
        theirs, ours = row["lerobot"], row["ours"]
        table.add_row(
            row["case"],
            str(row["workers"]),
            f"{theirs['rows_per_s']:.0f}",
            f"{ours['rows_per_s']:.0f}",
            f"{row['times_as_fast']:.1f}",
            f"{theirs['cpu_ms_per_row']:.1f}",
            f"{ours['cpu_ms_per_row']:.1f}",
        )
    console.print(table)
    opened = {side: statistics.median(row[side]["open_s"] for row in figures) for side in SIDES}
    console.print(f"to open: lerobot {opened['lerobot'] * 1e3:.0f} ms, ours {opened['ours'] * 1e3:.0f} ms")


def main() -> int:
    """Run, print, write, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", help="data sets made by `reflexarc dataset export`")
    parser.add_argument("--rows", type=int, default=512, help="read in each case")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the DataLoader")
    parser.add_argument("--json", type=Path, default=Path("runs/dataset_reading.json"))
    given = parser.parse_args()
    quiet_lerobot()
    console = Console()
    folders = given.data or [make(name) for name in SIZES]
    results = {}
    for folder in folders:
        figures = measure(folder, given.rows, given.rounds, given.workers)
        results[str(folder)] = figures
        show(console, folder, figures, given.rounds)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(
        json.dumps({"cores": os.cpu_count(), "batch": BATCH, "data": results}, indent=1) + "\n"
    )
    console.print(f"figures: {given.json}")
    slower = [
        f"{folder}, {row['case']}, {row['workers']} workers"
        for folder, rows in results.items()
        for row in rows
        if row["times_as_fast"] < 1.0
    ]
    if slower:
        console.print(f"slower than lerobot: {'; '.join(slower)}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
