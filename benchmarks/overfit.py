"""Does every head learn by heart? 16 demonstrations of `lift`, then the same 16 scenes, driven by what was learned.

    .venv/bin/python benchmarks/overfit.py --out runs/overfit --json runs/overfit.json

For each head: `reflexarc train` with the preset `by-heart` from random weights, on 16 episodes of `reflexarc collect`,
and `reflexarc eval --seen` on their seeds: the arm moves by the head's chunks, through controller, safety and physics.
What is done stays done: the same command goes on where it was stopped. A head that learned succeeds on at least 12.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

EPISODES, SEED, BAR = 16, 0, 12
HEADS: dict[str, tuple[int, dict[str, Any]]] = {
    "parallel tokens": (1000, {"kind": "parallel"}),
    "autoregressive tokens": (1600, {"kind": "autoregressive", "scramble": 0.3}),
    "L1 regression": (1000, {"kind": "regression"}),
    "flow matching": (1400, {"kind": "flow", "width": 96, "mlp_width": 256}),
    "flow matching, adaptive norm": (1400, {"kind": "flow", "width": 96, "mlp_width": 256, "time": "adarms"}),
    "FAST tokens": (2000, {"kind": "fast", "vocabulary": 128}),
}
"""Steps of training and settings of each head; a flow learns from noise drawn anew and needs more of them."""


def main() -> None:
    """Collect, and for each head train, evaluate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/overfit"))
    parser.add_argument("--head", nargs="+", default=list(HEADS), choices=list(HEADS))
    parser.add_argument("--set", nargs="*", default=[], help="of the policy, as of `reflexarc train`")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    demonstrations = given.out / "demonstrations"
    workers = ["--workers", str(given.workers)]
    reflexarc(
        "collect", "--task", "lift", "--episodes", EPISODES, "--seed", SEED, "--out", demonstrations, *workers
    )
    rows = []
    for name in given.head:
        folder = given.out / name.replace(" ", "-").replace(",", "")
        rows.append(one(name, folder, demonstrations, workers, given.set))
        show(rows)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(
            json.dumps({"episodes": EPISODES, "seed": SEED, "bar": BAR, "heads": rows}, indent=1)
        )
    sys.exit(any(row["successes"] < BAR for row in rows))


def one(name: str, folder: Path, data: Path, workers: list[str], overrides: list[str]) -> dict[str, Any]:
    """Train and evaluate one head, or what is left of it to do."""
    trained, evaluated = folder / "train.json", folder / "eval.json"
    steps, settings = HEADS[name]
    if not (trained.exists() and json.loads(trained.read_text())["finished"]):
        evaluated.unlink(missing_ok=True)
        unfinished = ["--resume"] if (folder / "training-state.pt").exists() else []
        head = f"model.head={yaml.safe_dump(settings, default_flow_style=True, width=1000).strip()}"
        chosen = ("train.threads=1", f"train.steps={steps}", head, *overrides)
        changes = [part for each in chosen for part in ("--set", each)]
        reflexarc(
            "train", "--data", data, "--policy", "by-heart", "--out", folder, "--cache", folder.parent / "cache",
            *workers, *unfinished, *changes, "--json", trained,
        )  # fmt: skip
        if not json.loads(trained.read_text())["finished"]:
            trained.unlink()
            sys.exit(f"{name}: training was stopped; the same command goes on")
    if not evaluated.exists():
        reflexarc(
            "eval", "--policy", folder / "policy", "--task", "lift", "--episodes", EPISODES, "--seed", SEED, "--seen",
            *workers, "--json", evaluated,
        )  # fmt: skip
    training, task = json.loads(trained.read_text()), json.loads(evaluated.read_text())["tasks"]["lift"]
    return {
        "head": name,
        "settings": settings,
        "steps": training["steps"],
        "minutes": training["elapsed_s"] / 60,
        "successes": sum(result["success"] for result in task["results"]),
        "failed_seeds": [result["seed"] for result in task["results"] if not result["success"]],
        "mean_time_s": task["mean_time_s"],
    }


def reflexarc(*arguments: object) -> None:
    """Run the command; ends this one with its status if it fails."""
    began = time.monotonic()
    command = [sys.executable, "-m", "reflexarc.cli", *map(str, arguments)]
    print("$ reflexarc", *map(str, arguments), flush=True)
    code = subprocess.run(command, env={"MUJOCO_GL": "egl", **os.environ}, check=False).returncode
    if code:
        sys.exit(code)
    print(f"  {time.monotonic() - began:.0f} s", flush=True)


def show(rows: list[dict[str, Any]]) -> None:
    """The table so far."""
    table = Table(title=f"`lift` by heart: the {EPISODES} scenes of the demonstrations; the bar is {BAR}")
    for column in ("head", "succeeds", "mean time", "steps", "training"):
        table.add_column(column, justify="left" if column == "head" else "right")
    for row in rows:
        mean = "-" if row["mean_time_s"] is None else f"{row['mean_time_s']:.1f} s"
        table.add_row(
            row["head"],
            f"{row['successes']}/{EPISODES}",
            mean,
            str(row["steps"]),
            f"{row['minutes']:.1f} min",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
