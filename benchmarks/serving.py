"""One policy server, many robots: answers a second and how long they take, against answering one robot at a time.

Simulated robots ask over real sockets; each asks again a while after its answer (`--think`), as a controller does. In
turns with different batch sizes, and once more beside clients that never read, that vanish in the middle and come back
under ever new identities, and that send garbage, half messages and messages of 64 MB. Prints a table, writes JSON.

Example: python benchmarks/serving.py --robots 32 --seconds 15 --rounds 2 --json runs/serving.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zmq
from rich.console import Console
from rich.table import Table

from reflexarc.commands.serve import serve_policy
from reflexarc.configs.serving import ServingConfig
from reflexarc.vla.serving.probe import grey_observation
from reflexarc.wire.codec import encode
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import ActionChunk, Message, PolicyInfo, PolicyInfoRequest
from reflexarc.wire.sockets import Requester

READY_S = 120.0
OVERSIZED = 64 * 1024 * 1024
TIMEOUT_NS = 2_000_000_000
"""A robot whose question is not answered for so long asks again, as a controller does."""


class SimulatedRobot:
    """Asks, waits for its answer, thinks, asks again."""

    def __init__(self, address: str, info: PolicyInfo, index: int, think_s: float, count: int) -> None:
        self._socket: Requester[Message] = Requester(address, Message)
        self._observation = grey_observation(info, session=f"{index}")
        self._think_ns = round(think_s * 1e9)
        # Spread over one period, as robots that were switched on at different times are.
        self._next_ns = time.monotonic_ns() + self._think_ns * index // count
        self._asked_ns = 0
        self._seq = 0
        self.latencies_ns: list[int] = []
        self.refused = 0

    def step(self) -> None:
        """Take in an answer; ask if it is time."""
        now = time.monotonic_ns()
        for answer in self._socket.poll():
            if isinstance(answer, ActionChunk) and answer.obs_seq == self._seq:
                self.latencies_ns.append(now - self._asked_ns)
            else:
                self.refused += 1
            self._next_ns, self._asked_ns = now + self._think_ns, 0
        lost = self._asked_ns and now - self._asked_ns > TIMEOUT_NS
        if lost or (not self._asked_ns and now >= self._next_ns):
            self._seq += 1
            self.refused += bool(lost)
            sent = self._socket.send(msgspec.structs.replace(self._observation, seq=self._seq))
            self._asked_ns = now if sent else 0  # not connected yet: at the next step

    def close(self) -> None:
        """Leave."""
        self._socket.close()


def misbehave(address: str, info: PolicyInfo, stop: threading.Event) -> None:
    """A slow, a vanishing and a malicious client, until `stop`."""
    context = zmq.Context()
    observation = grey_observation(info, session="slow")
    question = encode(observation)
    flat = msgspec.structs.replace(observation.state, pose_base_tcp=np.zeros(3))
    misshapen = encode(msgspec.structs.replace(observation, state=flat))
    slow = context.socket(zmq.DEALER)
    slow.setsockopt(zmq.RCVHWM, 1)
    slow.linger = 0
    slow.connect(address)
    number = 0
    while not stop.is_set():
        number += 1
        slow.send_multipart([number.to_bytes(8, "big"), question], zmq.NOBLOCK)  # and never reads the answer
        with context.socket(zmq.DEALER) as dying:
            dying.linger = 50
            dying.connect(address)
            dying.send_multipart([b"\0" * 8, question])
        with context.socket(zmq.DEALER) as malicious:
            malicious.linger = 50
            malicious.connect(address)
            malicious.send_multipart([b"1", np.random.default_rng(number).bytes(4096)])
            malicious.send(b"half")
            malicious.send_multipart([b"2", question[: len(question) // 2]])
            malicious.send_multipart([b"4", misshapen])
            if number % 20 == 1:
                malicious.send_multipart([b"3", bytes(OVERSIZED)])
        stop.wait(0.05)
    slow.close()
    context.destroy(linger=0)


def measure(args: argparse.Namespace, max_batch: int, *, bad: bool) -> dict[str, Any]:
    """One server in a process of its own, all robots for `--seconds`."""
    with tempfile.TemporaryDirectory() as folder:
        endpoints = Endpoints(
            policy=f"ipc://{folder}/policy",
            policy_console=f"ipc://{folder}/console",
            heartbeat=f"ipc://{folder}/heartbeat",
        )
        # Answers are compared by how long they take, so none is left out for taking too long.
        config = ServingConfig(max_batch=max_batch, max_age_s=60.0)
        process = multiprocessing.get_context("spawn").Process(
            target=serve_policy, args=(args.policy, endpoints), kwargs={"config": config}
        )
        process.start()
        stop = threading.Event()
        try:
            with Requester(endpoints.policy, PolicyInfo) as asker:
                info = asker.request(PolicyInfoRequest(t_ns=0), READY_S)
            strangers = threading.Thread(target=misbehave, args=(endpoints.policy, info, stop))
            if bad:
                strangers.start()
            return drive(endpoints.policy, info, args)
        finally:
            stop.set()
            if bad:
                strangers.join()
            process.terminate()
            process.join()


def drive(address: str, info: PolicyInfo, args: argparse.Namespace) -> dict[str, Any]:
    """All robots from one loop; the first second is not counted."""
    robots = [SimulatedRobot(address, info, index, args.think, args.robots) for index in range(args.robots)]
    began = time.monotonic()
    counted = False
    while time.monotonic() - began < args.seconds + 1:
        if not counted and time.monotonic() - began > 1:
            counted = True
            for robot in robots:
                robot.latencies_ns.clear()
                robot.refused = 0
        for robot in robots:
            robot.step()
        time.sleep(0.0005)
    for robot in robots:
        robot.close()
    latencies = np.concatenate([robot.latencies_ns for robot in robots]) * 1e-6
    served = [len(robot.latencies_ns) for robot in robots]
    return {
        "answers_per_s": len(latencies) / args.seconds,
        "p50_ms": float(np.percentile(latencies, 50)),
        "p99_ms": float(np.percentile(latencies, 99)),
        "refused": sum(robot.refused for robot in robots),
        "least_served": min(served),
        "most_served": max(served),
    }


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    limit = ServingConfig().max_clients
    parser.add_argument(
        "--robots", type=int, default=32, help=f"beyond {limit} (max_clients) they are refused"
    )
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--think", type=float, default=0.0, help="seconds between an answer and the next question"
    )
    parser.add_argument("--policy", default="reflexarc-tiny")
    parser.add_argument("--json", type=Path, default=Path("runs/serving.json"))
    args = parser.parse_args()
    console = Console(width=100)
    variants = {"one at a time": (1, False), "batches of 8": (8, False), "batches of 32": (32, False)}
    variants["batches of 8, bad clients"] = (8, True)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
    for number in range(args.rounds):
        for name, (max_batch, bad) in variants.items():
            runs[name].append(measure(args, max_batch, bad=bad))
        console.print(f"round {number + 1} of {args.rounds} done")
    table = Table(title=f"{args.robots} robots, one server, {args.policy}")
    for column in ("server", "answers/s", "p50 ms", "p99 ms", "unanswered", "answers to a robot"):
        table.add_column(column, justify="left" if column == "server" else "right")
    for name, rows in runs.items():
        mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        spread = f"{min(row['least_served'] for row in rows)}-{max(row['most_served'] for row in rows)}"
        rate, refused = f"{mean['answers_per_s']:.1f}", f"{sum(row['refused'] for row in rows)}"
        table.add_row(name, rate, f"{mean['p50_ms']:.0f}", f"{mean['p99_ms']:.0f}", refused, spread)
    console.print(table)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(
        json.dumps({"robots": args.robots, "think_s": args.think, "runs": runs}, indent=2) + "\n"
    )
    console.print(f"figures: {args.json}")


if __name__ == "__main__":
    main()
