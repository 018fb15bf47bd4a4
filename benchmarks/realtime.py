"""How late are the loops in real time? Against a bare sleep loop, in turns with it.

Each round runs a loop that does nothing but sleep to its deadlines at the host's rate, `--rate` (in a process of its
own, nothing else running), then the whole stack on episodes of one task. A tick is late if it is woken more than half a
period after its deadline. On a virtual machine the host takes the processors away at times (steal time in /proc/stat,
proc(5)): that makes any loop late, and is told beside; so is how old the driver's readings were at the host's ticks,
which `driver_silence_s` bounds. Prints a table, writes JSON.

Example: python benchmarks/realtime.py --rate 500 --rounds 5 --seconds 60 --json runs/realtime-500.json
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")

from rich.console import Console
from rich.table import Table
from stack_runs import AGES_MS, LOOPS, late_share, reading_ages, run_episodes, stolen_s

from reflexarc.processes import Processes
from reflexarc.runner import Runner
from reflexarc.setup import Setup, load_setup
from reflexarc.sim.tasks import get_task
from reflexarc.stack import (
    READY_S,
    free_endpoints,
    start_controller,
    start_recorder,
    start_server,
    start_simulated_robot,
)
from reflexarc.vla.serving.probe import grey_observation
from reflexarc.wire.clock import (
    HOST_PRIORITY,
    Histogram,
    Rate,
    give_way_to_loops,
    keep_in_memory,
    loop_stats,
    prefer_this_process,
)


def bare_loop(period_ns: int, seconds: float, out: Queue[dict[str, Any]]) -> None:
    """Sleep to deadlines for `seconds` and send the figures, as the real loops count them."""
    keep_in_memory()
    prefer_this_process(HOST_PRIORITY)
    gc.collect()
    gc.freeze()
    rate, lateness = Rate(period_ns), Histogram(late_ns=period_ns // 2)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        lateness.add(rate.sleep())
    out.put(loop_stats(lateness, Histogram(), rate.overruns))


def busy_policy(policy: str, stop: Event) -> None:
    """Answer the same grey pictures over and over, with the priority of a policy server, until `stop`."""
    from reflexarc.policies import open_policy

    give_way_to_loops()
    model = open_policy(policy)
    observation = grey_observation(model.info)
    while not stop.is_set():
        model.act(observation)


@contextlib.contextmanager
def busy(policy: str, *, wanted: bool) -> Iterator[None]:
    """A `busy_policy` in a process of its own while the block runs, if `wanted`."""
    if not wanted:
        yield
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    process = context.Process(target=busy_policy, args=(policy, stop))
    process.start()
    try:
        yield
    finally:
        stop.set()
        process.join()


def run_bare(period_ns: int, seconds: float) -> dict[str, Any]:
    """One bare loop in a fresh process."""
    context = multiprocessing.get_context("spawn")
    queue: Queue[dict[str, Any]] = context.Queue()
    stolen = stolen_s()
    process = context.Process(target=bare_loop, args=(period_ns, seconds, queue))
    process.start()
    figures = queue.get(timeout=seconds + 60)
    process.join()
    return figures | {"stolen_s": stolen_s() - stolen}


def run_stack(setup: Setup, policy: str, task: str, seconds: float, folder: Path) -> dict[str, Any]:
    """The whole stack for `seconds` of episodes; figures by loop, and of the policy."""
    endpoints = free_endpoints()
    with Processes(folder / "processes") as processes:
        start_server(processes, endpoints, policy)
        robot = start_simulated_robot(processes, endpoints, setup, task)
        start_controller(processes, endpoints, setup)
        start_recorder(processes, endpoints, folder / "episodes")
        runner = Runner(endpoints, ("policy", *robot, "controller", "recorder"))
        try:
            runner.wait_ready(READY_S, processes.check)
            stolen = stolen_s()
            limit_s = get_task(task).time_limit_s
            episodes = run_episodes(runner, task, seconds, limit_s, processes.check)
            loops = runner.loops()
        finally:
            runner.close()
    active_s = sum(item.time_s for item in episodes)
    return {
        "readings": reading_ages(folder / "episodes"),
        "loops": {name: loops[name] for name in LOOPS},
        "policy_hz": sum(item.chunks for item in episodes) / active_s,
        "episodes": len(episodes),
        "stolen_s": stolen_s() - stolen,
        "stops": [item.end for item in episodes if item.end not in ("success", "time limit")],
    }


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, help="of the robot host, Hz; the preset's if left out")
    parser.add_argument("--policy", default="reflexarc-tiny")
    parser.add_argument("--task", default="place")
    parser.add_argument("--busy", action="store_true", help="another policy keeps the cores busy")
    parser.add_argument("--json", type=Path, default=Path("runs/realtime.json"))
    args = parser.parse_args()
    rate = () if args.rate is None else (f"robot.tick_hz={args.rate:g}",)
    setup, console = load_setup(overrides=rate), Console()
    rates = {"host": setup.robot.tick_hz, "controller": setup.controller.rate_hz}
    folder = Path("runs") / f"realtime-{time.strftime('%Y%m%d-%H%M%S')}"
    bare: dict[str, list[dict[str, Any]]] = {"host": [], "controller": []}
    stack: list[dict[str, Any]] = []
    with busy(args.policy, wanted=args.busy):
        for number in range(args.rounds):
            bare["host"].append(run_bare(setup.robot.tick_ns, args.seconds))
            stack.append(run_stack(setup, args.policy, args.task, args.seconds, folder / str(number)))
            bare["controller"].append(run_bare(setup.controller.tick_ns, args.seconds))
            console.print(f"round {number + 1} of {args.rounds} done")
    shares = {f"bare at the {name}'s rate": late_share(rows) for name, rows in bare.items()}
    shares |= {name: late_share([row["loops"][name] for row in stack]) for name in LOOPS}
    beside = ", beside a busy policy" if args.busy else ""
    table = Table(title=f"late ticks, {args.rounds} rounds of {args.seconds:.0f} s in turns{beside}")
    for column in ("loop", "rate", "late ticks", "against bare"):
        table.add_column(column, justify="left" if column == "loop" else "right")
    for name, share in shares.items():
        owner = "controller" if "controller" in name else "host"
        reference = shares[f"bare at the {owner}'s rate"]
        ratio = (
            "-" if name.startswith("bare") else f"{share / reference:.1f} x" if reference else "bare had none"
        )
        table.add_row(name, f"{rates[owner]:g} Hz", f"{share:.3%}", ratio)
    console.print(table)
    taken = {
        "the bare loops": [row["stolen_s"] for rows in bare.values() for row in rows],
        "the stack": [row["stolen_s"] for row in stack],
    }
    told = "; ".join(f"{sum(each):.1f} s in {len(each)} runs of {name}" for name, each in taken.items())
    console.print(f"processor time taken by the machine below: {told}")
    ages = [row["readings"] for row in stack]
    above = ", ".join(
        f"{sum(row[f'above_{limit}_ms'] for row in ages):.0f} above {limit} ms" for limit in AGES_MS
    )
    console.print(
        f"age of the driver's readings at {sum(row['ticks'] for row in ages):.0f} ticks of an enabled host: "
        f"{above}, {max(row['max_ms'] for row in ages):.1f} ms at most"
    )
    console.print(f"policy: {sum(row['policy_hz'] for row in stack) / len(stack):.1f} Hz")
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(
        json.dumps(
            {"busy": args.busy, "rate_hz": rates, "late_share": shares, "bare": bare, "stack": stack},
            indent=2,
        )
        + "\n"
    )
    console.print(f"figures: {args.json}")


if __name__ == "__main__":
    main()
