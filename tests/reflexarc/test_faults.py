"""Real processes, really killed: the arm comes to rest, the log says who died, and what may go on goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from contracts.poisoned_policy import POISON, serve_poisoned
from reflexarc.configs.errors import WireError
from reflexarc.configs.load import load_controller, load_robot, load_safety
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.processes import Processes
from reflexarc.replay import replay
from reflexarc.runner import EpisodeFigures, Runner
from reflexarc.safety.states import LATCHED
from reflexarc.setup import Setup
from reflexarc.stack import (
    free_endpoints,
    start_controller,
    start_recorder,
    start_simulated_robot,
)
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import ArmState, Event, State
from reflexarc.wire.sockets import Subscriber

AT_REST = 0.01
"""rad/s: a joint slower than this stands."""

# A shared machine with two cores stalls a process now and then; the watchdogs' own times are tested in safety/.
SETUP = Setup(
    robot=load_robot("panda"),
    safety=load_safety("panda", ["driver_silence_s=0.5", "hold_after_s=0.3", "stop_after_s=0.6"]),
    controller=load_controller("default", ["policy_timeout_s=0.5"]),
)


class Stand:
    """A whole run with the circling policy, and an episode going on in a thread."""

    def __init__(self, folder: Path) -> None:
        self.endpoints: Endpoints = free_endpoints()
        self.folder = folder
        self.processes = Processes(folder / "processes")
        self.processes.start("policy", serve_poisoned, self.endpoints)
        robot = start_simulated_robot(self.processes, self.endpoints, SETUP, "reach")
        start_controller(self.processes, self.endpoints, SETUP)
        start_recorder(self.processes, self.endpoints, folder / "episodes")
        self.runner = Runner(self.endpoints, ("policy", *robot, "controller", "recorder"))
        self.states: Subscriber[State] = Subscriber(self.endpoints.state, State)
        self.arm: Subscriber[ArmState] = Subscriber(self.endpoints.arm_state, ArmState)
        self.figures: EpisodeFigures | None = None
        self.runner.wait_ready(120.0, self.processes.check)

    def log(self, episode: str) -> Path:
        """Of an episode that has ended."""
        return self.folder / "episodes" / f"{episode}.mcap"

    def heal(self) -> None:
        """Undo what the test before has done: nobody is dead, nothing is latched, the arm stands at rest."""
        dead = set(self.processes.dead())
        self.wait(lambda _: set(self.lost()) == dead, "the runner to miss whoever is dead")
        for name in dead:
            self.processes.restart(name)
        self.wait(lambda _: not self.lost(), "whoever was dead to be back", 120.0)
        self.wait(lambda state: self.speed(state) == 0.0, "the arm to stand")
        if self.runner.request("status").safety in LATCHED:
            assert self.runner.request("reset").ok

    def lost(self) -> tuple[str, ...]:
        """Those whom the runner does not hear."""
        self.runner._watch.update(monotonic_ns())
        return self.runner._watch.lost

    def begin(self, episode: str, limit_s: float = 30.0) -> None:
        """Start an episode and wait until the arm moves."""
        self.start_episode(episode, limit_s)
        self.wait(lambda state: state.safety == "active" and self.speed(state) > 0.05, "the arm to move")

    def start_episode(self, episode: str, limit_s: float, instruction: str = "go round") -> None:
        """Start an episode in a thread."""
        self.figures = None

        def run() -> None:
            with contextlib.suppress(WireError):  # a test that ends everything leaves nobody to ask
                self.figures = self.runner.episode(
                    episode,
                    task="reach",
                    seed=1,
                    instruction=instruction,
                    time_limit_s=limit_s,
                    metadata="{}",
                    check=lambda: None,
                )

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def end(self) -> EpisodeFigures:
        """Wait for the episode's end."""
        self.thread.join(60.0)
        assert self.figures is not None
        return self.figures

    @staticmethod
    def speed(state: State) -> float:
        """Of the fastest joint as commanded, rad/s."""
        return float(np.max(np.abs(state.joint_velocity_commanded)))

    def wait(self, condition: Callable[[State], bool], what: str, timeout_s: float = 20.0) -> State:
        """The first state that meets the condition."""
        self.states.drain()
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            state = self.states.latest()
            if state is not None and condition(state):
                return state
            time.sleep(0.005)
        raise AssertionError(f"waited {timeout_s} s in vain for {what}")

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to one of the processes."""
        os.kill(self.processes.pid(name), number)

    def close(self) -> None:
        """End everything."""
        self.processes.stop()
        for socket in (self.states, self.arm):
            socket.close()
        self.runner.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    made = Stand(tmp_path_factory.mktemp("stand"))
    yield made
    made.close()


@pytest.fixture
def stand(shared: Stand) -> Stand:
    """The one stand of this file, in order again."""
    shared.heal()
    return shared


def events_of(path: Path) -> list[str]:
    """`kind: text` of every event in a log."""
    return [
        f"{message.kind}: {message.text}"
        for _, message in EpisodeReader(path).messages(["/event"])
        if isinstance(message, Event)
    ]


def test_a_chunk_with_nan_is_refused_and_the_arm_does_not_move(stand: Stand) -> None:
    stand.states.drain()
    stand.start_episode("nan", 2.0, POISON)
    fastest = 0.0
    while stand.thread.is_alive():
        fastest = max([fastest, *(stand.speed(state) for state in stand.states.drain())])
        time.sleep(0.01)
    assert stand.end().end == "time limit"
    assert fastest == 0.0
    told = events_of(stand.log("nan"))
    assert any("chunk_rejected" in line and "nan" in line.lower() for line in told)


def test_a_killed_policy_is_a_hold_and_a_killed_controller_a_latched_stop(stand: Stand) -> None:
    stand.begin("first")
    stand.kill("policy")
    stand.wait(lambda state: stand.speed(state) < AT_REST, "the arm to hold without a policy", 5.0)
    time.sleep(2.5)
    stand.processes.start("policy", serve_poisoned, stand.endpoints)
    stand.wait(lambda state: state.safety == "active" and stand.speed(state) > 0.05, "the arm to go on", 60.0)
    stand.kill("controller")
    stand.wait(lambda state: state.safety == "hold", "a hold when the controller is silent", 2.0)
    stand.wait(lambda state: state.safety == "protective_stop", "a latched stop", 3.0)
    stopped = stand.wait(lambda state: stand.speed(state) == 0.0, "the arm to stand")
    assert stand.end().success is False

    log = stand.log("first")
    told = events_of(log)
    assert any("peer_lost" in line and "policy" in line for line in told)
    assert any("controller" in line and "protective_stop" in line for line in told)
    result = replay(log)
    assert result.max_qpos_error == 0.0
    assert result.compared > 100

    # A latched stop: no enable without a reset, no motion without a fresh setpoint.
    assert not stand.runner.request("enable").ok
    assert stand.runner.request("reset").ok
    assert stand.runner.request("enable").ok
    time.sleep(0.5)
    after = stand.wait(lambda state: state.safety == "active", "the enabled state")
    moved = np.max(np.abs(after.joint_position_commanded - stopped.joint_position_commanded))
    assert moved < 0.01


def test_with_its_host_suspended_the_arm_brakes_by_itself(stand: Stand) -> None:
    """A killed host is among the faults of test_injection.py."""
    stand.begin("host")
    stand.kill("host", signal.SIGSTOP)
    deadline = time.monotonic() + 3.0
    braked = None
    while time.monotonic() < deadline and braked is None:
        braked = next((state for state in stand.arm.drain() if state.braked), None)
        time.sleep(0.005)
    assert braked is not None
    time.sleep(0.5)
    resting = [state for state in stand.arm.drain() if isinstance(state, ArmState)]
    assert resting
    assert float(np.max(np.abs(resting[-1].joint_velocity))) < AT_REST
    stand.kill("host", signal.SIGCONT)
    stand.thread.join(60.0)
    assert not stand.thread.is_alive()
