"""An adversary drives the simulated arm into table, keep-outs, itself, a wall and a soft body: what was measured.

    .venv/bin/python benchmarks/adversary.py --episodes 1000 --json runs/adversary.json
    .venv/bin/python benchmarks/adversary.py --episodes 50           # ten of each kind, half a minute
    .venv/bin/python benchmarks/adversary.py --robot ur5e --episodes 100

In virtual time: the figures are the same on every run. Every episode is written down when it is done, so an interrupted
run goes on where it was (`--log`). Exits with 1 if a bound is broken:

    penetration   <= 6 mm: the servo's tracking error at working speed
    sustained     <= the force ceiling, on hand and fingers, which the wrist sensor feels, and on the links before it
    peak          <= 1.2 x v·sqrt(k·m) of the contact, or the transient ceiling where that is more
    trips         of the independent monitor, but for the force of a blow: none

The monitor watches beside the host and stops nothing here; "trips" are how often it would have.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from reflexarc.commands.options import write_json
from reflexarc.configs.load import config_hash, load_robot, load_safety
from reflexarc.pool import run_jobs
from reflexarc.safety.monitor import PRESSED
from reflexarc.sim.adversary import KINDS, Arena, Attack, Kind, attack

TOLERANCE_M = 0.006
OVER_PREDICTION = 1.2
BATCH = 10
COLUMNS = (
    "episodes", "deepest mm", "sustained N", "on links", "peak N", "peak / expected", "normal only", "contacts",
    "stops", "trips", "broken",
)  # fmt: skip

Job = tuple[Kind, str, str, tuple[int, ...]]


def run_batch(job: Job) -> list[Attack]:
    """Some episodes of one kind, in a process of their own."""
    kind, robot, safety, seeds = job
    arena = Arena(kind, load_robot(robot), load_safety(safety))
    return [attack(arena, seed) for seed in seeds]


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=1000, help="in all, shared evenly by the five kinds")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode of each kind")
    parser.add_argument("--robot", default="panda", help="preset or file of a robot")
    parser.add_argument(
        "--safety", default=None, help="preset or file of safety limits; as the robot by default"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--log", type=Path, default=Path("runs/adversary.jsonl"), help="finished episodes")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    safety = args.safety or args.robot
    limits = load_safety(safety)
    against = {"robot": config_hash(load_robot(args.robot)), "limits": config_hash(limits)}
    found = _finished(args.log, against)
    per_kind = -(-args.episodes // len(KINDS))
    jobs: list[Job] = []
    for kind in KINDS:
        todo = [seed for seed in range(args.seed, args.seed + per_kind) if (kind, seed) not in found]
        jobs += [(kind, args.robot, safety, tuple(todo[k : k + BATCH])) for k in range(0, len(todo), BATCH)]
    args.log.parent.mkdir(parents=True, exist_ok=True)
    for _, done in run_jobs(run_batch, jobs, workers=args.workers, title="attacking"):
        with args.log.open("a") as log:
            for item in done:
                found[item.kind, item.seed] = item
                log.write(json.dumps(dataclasses.asdict(item) | against) + "\n")
    wanted = [found[kind, seed] for kind in KINDS for seed in range(args.seed, args.seed + per_kind)]
    figures = {kind: _figures([a for a in wanted if a.kind == kind], limits.force_ceiling) for kind in KINDS}
    _print(figures, args.robot)
    write_json(args.json, against | {"kinds": figures})
    return 1 if any(row["broken"] for row in figures.values()) else 0


def _finished(path: Path, against: dict[str, str]) -> dict[tuple[Kind, int], Attack]:
    """Episodes of an earlier run with the same robot and limits."""
    found: dict[tuple[Kind, int], Attack] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            data = json.loads(line)
            if {name: data.pop(name, "") for name in against} == against:
                found[data["kind"], data["seed"]] = Attack(**data)
    return found


def _figures(attacks: list[Attack], ceiling: float) -> dict[str, Any]:
    peaks = np.array([item.peak for item in attacks])
    return {
        "episodes": len(attacks),
        "penetration_mm": 1e3 * max(item.penetration for item in attacks),
        "sustained_n": max(item.sustained for item in attacks),
        "sustained_links_n": max(item.sustained_links for item in attacks),
        "peak_n": float(peaks.max()),
        "speed_max": max(item.speed for item in attacks),
        "peak_over_expected": max(item.excess for item in attacks),
        "peak_over_expected_normal": max(item.strict for item in attacks),
        "contacts": sum(item.contacts for item in attacks),
        "stops": sum(item.stops for item in attacks),
        "trips": dict(collections.Counter(reason for item in attacks for reason in item.trips)),
        "broken": sum(
            item.penetration > TOLERANCE_M
            or max(item.sustained, item.sustained_links) > ceiling
            or item.excess > OVER_PREDICTION
            or not {PRESSED}.issuperset(item.trips)
            for item in attacks
        ),
    }


def _print(figures: dict[Kind, dict[str, Any]], robot: str) -> None:
    table = Table(title=f"an adversary against the safety layer of {robot}, as measured in MuJoCo")
    table.add_column("into")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for kind, row in figures.items():
        table.add_row(
            kind,
            str(row["episodes"]),
            f"{row['penetration_mm']:.1f}",
            f"{row['sustained_n']:.1f}",
            f"{row['sustained_links_n']:.1f}",
            f"{row['peak_n']:.0f}",
            f"{row['peak_over_expected']:.2f}",
            f"{row['peak_over_expected_normal']:.2f}",
            str(row["contacts"]),
            str(row["stops"]),
            str(sum(row["trips"].values())),
            str(row["broken"]),
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
