"""Millions of hostile commands through the filter, judged tick by tick: chunks that can be run anywhere, in any order.

A chunk is some thousand commands to one robot at one rate, all drawn from (seed, number of the chunk), in every second
round of the robots with a tool in its hand. Its sender changes from episode to episode; now and then it dies, and the
arm must come to rest within its limits. Of every hundredth accepted state the stored stop is held against the limits,
too, whether or not it is ever used.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from contracts.adversaries import ADVERSARIES, Numbers, searched
from contracts.filter_bench import LOST, FilterBench
from contracts.motion_checker import Checker
from reflexarc.configs.load import load_robot, load_safety
from reflexarc.wire.messages import F64

PRESETS = (("panda", 200), ("fr3", 1000), ("ur5e", 500))
"""Robot and rate of its host, Hz: the lowest that is used, and those of the makers' own interfaces."""

HELD = "held_tool={radius: 0.02, length: 0.08}"
"""m beyond the TCP: a bottle, or a tool."""

CHUNK = 10_000
EPISODE = (150, 900)
"""Ticks of an episode, at least and at most."""

STOP_EVERY = 100
"""Ticks between two states whose stored stop is judged."""

SEARCH = "search"
REST_S = 10.0
"""A stop that takes longer has failed."""


@dataclasses.dataclass
class Outcome:
    """Of one chunk. held: with a tool in hand; commands: filtered ticks; stops: accepted states braked from; worst: by
    rule, 0 is the limit."""

    chunk: int
    robot: str
    held: bool
    commands: int = 0
    stops: int = 0
    violations: dict[str, float] = dataclasses.field(default_factory=dict)
    failed_stops: dict[str, float] = dataclasses.field(default_factory=dict)
    worst: dict[str, float] = dataclasses.field(default_factory=dict)
    senders: dict[str, int] = dataclasses.field(default_factory=dict)


class Chunk:
    """Runs one chunk."""

    def __init__(self, seed: int, number: int) -> None:
        self._name, rate = PRESETS[number % len(PRESETS)]
        self._robot = load_robot(self._name, [f"tick_hz={rate}"])
        held = number // len(PRESETS) % 2 == 1
        self._safety = load_safety(self._name, [HELD] if held else [])
        self._checker = Checker(self._robot, self._safety)
        self._rng = np.random.default_rng([seed, number])
        self._best: tuple[float, F64] | None = None
        self.outcome = Outcome(number, self._name, held)

    def run(self, commands: int) -> Outcome:
        """Episodes until so many commands have been filtered."""
        names = [*sorted(ADVERSARIES), SEARCH, SEARCH]
        while self.outcome.commands < commands:
            name = str(self._rng.choice(names))
            ticks = min(int(self._rng.integers(*EPISODE)), max(commands - self.outcome.commands, 10))
            self.outcome.senders[name] = self.outcome.senders.get(name, 0) + ticks
            self._episode(name, ticks)
        return self.outcome

    def _episode(self, name: str, ticks: int) -> None:
        bench = FilterBench(self._robot, self._safety)
        bench = FilterBench(self._robot, self._safety, self._start(bench), bench.filter)
        genes = self._mutated() if name == SEARCH else None
        bench.request("enable")
        bench.tick(bench.setpoint())
        dies = int(self._rng.integers(ticks)) if self._rng.random() < 0.5 else ticks
        for tick in range(ticks):
            if tick >= dies:
                bench.tick()
                dies = ticks if bench.memory.at_rest else dies
            else:
                self._attack(bench, name, genes, tick)
            if tick % STOP_EVERY == 0 and len(bench.memory.stop):
                self._judge_stored_stop(bench)
        self._let_rest(bench)
        self._judge(bench, genes)

    def _attack(self, bench: FilterBench, name: str, genes: F64 | None, tick: int) -> None:
        rng = self._rng
        numbers: Numbers
        if genes is not None:
            numbers = searched(genes, tick, bench.memory, self._robot)
        else:
            numbers = ADVERSARIES[name](rng, tick, bench.memory, self._robot)
        due = bench.now_ns + int(rng.integers(-60, 60)) * 1_000_000
        setpoint = bench.setpoint(*numbers, due_ns=due, gripper=float(rng.uniform(-0.5, 1.5)))
        bench.tick(None if rng.random() < 0.03 else setpoint)
        if bench.state == LOST:
            bench.request("reset")
            if bench.request("enable"):
                bench.tick(bench.setpoint())

    def _start(self, bench: FilterBench) -> F64:
        """(n,) a joint position within all limits: about home, or anywhere."""
        home = np.array(self._robot.home)
        lower = np.array([joint.lower for joint in self._robot.joints])
        upper = np.array([joint.upper for joint in self._robot.joints])
        for _ in range(60):
            anywhere = self._rng.random() < 0.5
            position = (
                self._rng.uniform(lower, upper) if anywhere else home + self._rng.normal(0, 0.4, len(home))
            )
            if not bench.filter.outside(position):
                return np.asarray(position, dtype=np.float64)
        return home

    def _mutated(self) -> F64:
        """Genes of the next try: at random, or the best ones so far, a little changed."""
        genes = self._rng.normal(0, 1, (4, len(self._robot.joints)))
        if self._best is None or self._rng.random() < 0.2:
            return genes
        return self._best[1] + 0.3 * genes

    def _let_rest(self, bench: FilterBench) -> None:
        """The sender dies for good."""
        for _ in range(round(REST_S * self._robot.tick_hz)):
            if bench.memory.at_rest and not len(bench.memory.stop):
                break
            bench.tick()
        else:
            self.outcome.failed_stops["never at rest"] = 1.0
        self.outcome.stops += 1

    def _judge_stored_stop(self, bench: FilterBench) -> None:
        steps = np.cumsum(bench.memory.stop, axis=0) * bench.filter.limits.dt
        before = bench.positions[-5:]
        if len(before) < 5:
            return
        stream = np.vstack([before, bench.memory.position + steps])
        found = self._checker.violations(stream, context=4)
        if bench.memory.stop[-1].any():
            found["not at rest"] = 1.0
        self.outcome.stops += 1
        _raise_to(self.outcome.failed_stops, found)

    def _judge(self, bench: FilterBench, genes: F64 | None) -> None:
        stream = bench.stream
        worst = self._checker.worst(stream, np.array(bench.grippers))
        _raise_to(self.outcome.worst, worst)
        _raise_to(self.outcome.violations, self._checker.broken(worst))
        self.outcome.commands += len(stream) - 1
        if genes is not None:
            fitness = max(worst[rule] for rule in worst if rule not in ("gripper", "opening", "finite"))
            if self._best is None or fitness >= self._best[0]:
                self._best = fitness, genes


def run_chunk(seed: int, number: int, commands: int = CHUNK) -> dict[str, Any]:
    """The outcome of one chunk, as plain data."""
    return dataclasses.asdict(Chunk(seed, number).run(commands))


def run_campaign(seed: int, commands: int, record: Path, workers: int) -> Iterator[dict[str, Any]]:
    """Outcomes of all chunks, as they finish; those in `record` (JSON lines, appended to) are not run again."""
    done: dict[int, dict[str, Any]] = {}
    if record.exists():
        for line in record.read_text(encoding="utf-8").splitlines():
            outcome = json.loads(line)
            done[outcome["chunk"]] = outcome
    wanted = range(-(-commands // CHUNK))
    yield from (done[number] for number in wanted if number in done)
    missing = [number for number in wanted if number not in done]
    record.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool, record.open("a", encoding="utf-8") as out:
        futures = [pool.submit(run_chunk, seed, number) for number in missing]
        try:
            for future in as_completed(futures):
                outcome = future.result()
                out.write(json.dumps(outcome) + "\n")
                out.flush()
                yield outcome
        finally:
            pool.shutdown(cancel_futures=True)


def summary(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    """What a campaign found, over all its chunks."""
    worst: dict[str, float] = {}
    violations: dict[str, float] = {}
    failed: dict[str, float] = {}
    by_robot: dict[str, int] = {}
    by_sender: dict[str, int] = {}
    for outcome in outcomes:
        _raise_to(worst, outcome["worst"])
        _raise_to(violations, outcome["violations"])
        _raise_to(failed, outcome["failed_stops"])
        by_robot[outcome["robot"]] = by_robot.get(outcome["robot"], 0) + outcome["commands"]
        for sender, ticks in outcome["senders"].items():
            by_sender[sender] = by_sender.get(sender, 0) + ticks
    return {
        "commands": sum(outcome["commands"] for outcome in outcomes),
        "states_braked_from": sum(outcome["stops"] for outcome in outcomes),
        "violations": violations,
        "failed_stops": failed,
        "worst": dict(sorted(worst.items())),
        "commands_by_robot": by_robot,
        "commands_with_a_tool": sum(outcome["commands"] for outcome in outcomes if outcome["held"]),
        "commands_by_sender": by_sender,
    }


def _raise_to(worst: dict[str, float], found: dict[str, float]) -> None:
    for rule, value in found.items():
        worst[rule] = max(worst.get(rule, -np.inf), float(value))
