"""Faults on real processes: in how many ms each was detected, how it ended, how far the tool still went.

    .venv/bin/python benchmarks/faults.py --json runs/faults.json       # all, some five minutes
    .venv/bin/python benchmarks/faults.py --only "host SIGKILL" "sender dies"
    .venv/bin/python benchmarks/faults.py --robot ur5e

`--markdown` prints the table of docs/safety.md. Exits with 1 if a fault ended otherwise than it should.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from reflexarc.commands.options import write_json
from reflexarc.faults import FAULTS, Result, judge, run_fault

HEAD = ("fault", "detected in", "by", "final state", "arm's own brake", "tool travelled")


def row(result: Result) -> tuple[str, ...]:
    """The cells of one fault."""
    detected = "not needed" if result.detected_ms is None else f"{result.detected_ms:.0f} ms"
    way = f"{result.travelled_mm:.0f} mm" + (", goes on" if result.moving else "")
    return (result.fault, detected, result.by or "-", result.final, "on" if result.braked else "off", way)


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=list(FAULTS), choices=list(FAULTS), metavar="FAULT")
    parser.add_argument("--robot", default="panda", help="preset of an arm and of its limits")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--markdown", action="store_true")
    args = parser.parse_args()
    results = []
    for name in track(args.only, "faults", console=Console(stderr=True)):
        with tempfile.TemporaryDirectory() as folder:
            results.append(run_fault(name, Path(folder), tuple(args.overrides), robot=args.robot))
    wrong = [text for text in map(judge, results) if text]
    if args.markdown:
        print("| " + " | ".join(HEAD) + " |\n" + "| --- " * len(HEAD) + "|")
        for result in results:
            print("| " + " | ".join(row(result)) + " |")
    else:
        table = Table(*HEAD, title=f"faults on real processes, {args.robot}")
        for result in results:
            table.add_row(*row(result))
        Console(width=160).print(table)
    for text in wrong:
        print(text, file=sys.stderr)
    write_json(args.json, [dataclasses.asdict(result) for result in results])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
