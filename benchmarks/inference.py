"""How long from pictures to actions: ours against `transformers` and lerobot, on random weights of a true shape.

Weights do not change speed. Every variant answers the same observation, in turns, timed from 8-bit pictures in memory
to actions in memory, preprocessing and copies included. `openvla`: seven tokens one after another by `generate` as it
is, `generate` with static cache and compiled decoder, and ours; and OpenVLA-OFT's parallel chunk of 8 actions. `pi0`: a
chunk of 50 from two views in 10 steps, by lerobot's own model and by ours. `own`: a model of Reflexarc's own, where
pictures and words are new and where they are known. `tiny`, `small`, `pi0-small` and `own-small` are the same
structures, small enough for a processor.

The floor is what the machine could do: bytes of the weights over its measured copy rate for each token or step, and the
operations of towers and prefix over its measured rate of products. Prints tables, writes JSON; bars that the device
can't show are told as not measured.

Example: python benchmarks/inference.py --shape small --runs 50 --json runs/inference.json
On a GPU: python benchmarks/inference.py --shape openvla pi0 own --device cuda --runs 200
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inference_openvla import OpenVlaSubject
from inference_own import OwnSubject
from inference_pi0 import Pi0Subject
from inference_rates import measure, memory_gb, stage_ms
from rich.console import Console
from rich.table import Table

SHAPES = ("tiny", "small", "openvla", "pi0-small", "pi0", "own-small", "own")
REFERENCES = (
    "tokens: transformers generate",
    "chunk: transformers",
    "chunk: lerobot",
    "chunk: ours, all anew",
    "words first: ours, read anew",
)
IN_FULL = ("eager", "graphs", "compiled", "graphs, compiled")
"""Our ways whose answers are the reference's: bars are held to these alone, not to fewer bits or fewer tokens."""
CHUNKS_PER_S, PI0_MS, OVER_FLOOR, OVER_EAGER, OVER_EAGER_CPU = 60.0, 15.0, 1.5, 4.0, 3.0
"""The bars on one H200; the last, of a small model on a processor."""

FOR_P99 = 100
"""Runs below which the table shows the slowest one: a 99th percentile of few would be nothing else."""

Figures = dict[str, Any]


def subject_of(
    shape: str, device: torch.device, dtype: torch.dtype
) -> OpenVlaSubject | Pi0Subject | OwnSubject:
    """What is timed."""
    if shape.startswith("own"):
        return OwnSubject.build(shape, device, dtype)
    kind = Pi0Subject if shape.startswith("pi0") else OpenVlaSubject
    return kind.build(shape, device, dtype)


def run(shape: str, device: torch.device, count: int, *, compiled: bool) -> Figures:
    """All figures of one shape."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    subject = subject_of(shape, device, dtype)
    variants = subject.variants(compiled=compiled)
    times = measure(variants, count)
    figures: Figures = {
        "shape": shape,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu",
        "dtype": str(dtype).removeprefix("torch."),
        "runs": count,
        "times_ms": times,
        "percentiles_ms": {
            name: {"p50": float(np.percentile(row, 50)), "p99": float(np.percentile(row, 99))}
            for name, row in times.items()
        },
        "memory_gb": memory_gb(variants, device),
        "stages_ms": stage_ms(subject.stages(), device, min(count, 30)),
        "floor": subject.floor(),
        "agreement": subject.agreement(),
    }
    return figures | {"bars": bars(figures, device)}


def bars(figures: Figures, device: torch.device) -> list[dict[str, Any]]:
    """What was promised, what came of it; a figure is None where this run does not show it."""
    p50 = {name: row["p50"] for name, row in figures["percentiles_ms"].items()}

    def fastest(kind: str) -> float | None:
        names = [f"{kind}: ours, {way}" for way in IN_FULL]
        return min((p50[name] for name in names if name in p50), default=None)

    tokens, chunk = fastest("tokens"), fastest("chunk")
    eager = p50.get(REFERENCES[0])
    faster = eager / tokens if eager and tokens else None
    shape, cuda = figures["shape"], device.type == "cuda"
    floor = figures["floor"]
    found: list[tuple[str, float | None, float, bool]] = []
    if shape in ("tiny", "small"):
        found.append(("tokens: times faster than generate, on a processor", faster, OVER_EAGER_CPU, True))
    if shape == "openvla":
        over = tokens / floor["tokens_floor_ms"] if tokens else None
        found.append(("tokens: times the floor, H200", over if cuda else None, OVER_FLOOR, False))
        found.append(("tokens: times faster than generate, H200", faster if cuda else None, OVER_EAGER, True))
        found.append(
            ("chunk of 8x7: a second, H200", 1e3 / chunk if cuda and chunk else None, CHUNKS_PER_S, True)
        )
    if shape == "pi0":
        found.append(("chunk of 50: ms, H200", chunk if cuda else None, PI0_MS, False))
    return [
        {
            "bar": name,
            "figure": figure,
            "limit": limit,
            "met": None if figure is None else bool(figure >= limit if at_least else figure <= limit),
        }
        for name, figure, limit, at_least in found
    ]


def show(figures: Figures, console: Console) -> None:
    """The table of one shape, and what stands below it."""
    where = f"{figures['shape']} on {figures['device']}, {figures['dtype']}"
    table = Table(title=f"{where}: from pictures to actions, {figures['runs']} runs")
    enough = figures["runs"] >= FOR_P99
    last = "p99 ms" if enough else "most ms"
    for column in ("variant", "p50 ms", last, "against the reference", "against the floor"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    rows = figures["percentiles_ms"]
    for name, row in rows.items():
        kind = name.split(":")[0]
        reference = next((rows[each] for each in REFERENCES if each in rows and each.startswith(kind)), None)
        ratio = f"{reference['p50'] / row['p50']:.2f} x faster" if reference else "-"
        floor = row["p50"] / figures["floor"][f"{kind}_floor_ms"]
        most = row["p99"] if enough else max(figures["times_ms"][name])
        table.add_row(name, f"{row['p50']:.1f}", f"{most:.1f}", ratio, f"{floor:.1f} x")
    console.print(table)
    for name in ("stages_ms", "floor", "agreement", "memory_gb"):
        told = (
            ", ".join(f"{key} {value:.3g}" for key, value in figures[name].items())
            or "nothing to compare with"
        )
        console.print(f"{name}: {told}")
    for bar in figures["bars"]:
        state = {None: "not measured here", True: "met", False: "NOT met"}[bar["met"]]
        figure = "" if bar["figure"] is None else f"{bar['figure']:.2f}, "
        console.print(f"bar: {bar['bar']}: {figure}limit {bar['limit']:g}: {state}")


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, nargs="+", default=["small", "pi0-small"])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--no-compile", action="store_true", help="leave out what takes minutes to compile")
    parser.add_argument("--json", type=Path, default=Path("runs/inference.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cuda = torch.cuda.is_available() if args.device == "auto" else args.device == "cuda"
    if cuda and not torch.cuda.is_available():
        parser.exit(2, "device cuda: torch finds no GPU; use --device cpu\n")
    device, console = torch.device("cuda" if cuda else "cpu"), Console(width=110)
    found = []
    for shape in args.shape:
        found.append(run(shape, device, args.runs, compiled=not args.no_compile))
        show(found[-1], console)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({"torch": torch.__version__, "shapes": found}, indent=2) + "\n")
    console.print(f"figures: {args.json}")


if __name__ == "__main__":
    main()
