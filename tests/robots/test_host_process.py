"""The host in real time: sockets, requests, dead senders, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from reflexarc.configs.errors import RobotError, WireError
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.robots.fake import FakeRobot
from reflexarc.robots.host_process import HostSummary, run_host
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.codec import encode
from reflexarc.wire.endpoints import NAMES, Endpoints
from reflexarc.wire.messages import (
    Event,
    HostAction,
    HostReply,
    HostRequest,
    Measured,
    Message,
    SafetyReport,
    Setpoint,
    State,
)
from reflexarc.wire.sockets import Publisher, Push, Requester, Subscriber


def local_endpoints(folder: Path) -> Endpoints:
    """Every socket as a file in `folder`: no ports to collide."""
    return Endpoints(**{name: f"ipc://{folder}/{name}" for name in NAMES})  # type: ignore[arg-type]


class Peer:
    """Stands for controller, console and listener of a host."""

    def __init__(self, endpoints: Endpoints, config: RobotConfig) -> None:
        self._state: Subscriber[Message] = Subscriber(endpoints.state)
        self._setpoint = Push(endpoints.setpoint)
        self._console: Requester[HostReply] = Requester(endpoints.console, HostReply)
        self._home = np.array(config.home)
        self._seq = 0
        self.messages: list[Message] = []

    def ask(self, action: HostAction) -> HostReply:
        """A request and its answer."""
        return self._console.request(HostRequest(t_ns=0, action=action, seq=1), timeout_s=5.0)

    def send(self, offset: float, ahead_ns: int = 0) -> None:
        """A setpoint `offset` rad beside home, stamped so far ahead of now."""
        self._seq += 1
        now = monotonic_ns() + ahead_ns
        self._setpoint.send(
            Setpoint(
                t_ns=now,
                seq=self._seq,
                t_due_ns=now,
                joint_position=self._home + offset,
                joint_velocity=np.zeros_like(self._home),
                gripper=1.0,
                source="expert",
            )
        )

    def lead(self, seconds: float, offset: float) -> None:
        """Send setpoints at 100 Hz."""
        for _ in range(round(seconds * 100)):
            self.send(offset)
            time.sleep(0.01)
            self.listen()

    def listen(self) -> None:
        """Keep what arrived."""
        self.messages += self._state.drain()

    def until(self, what: Callable[[], bool], seconds: float = 5.0) -> None:
        """Listen until `what` is true."""
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, f"waited {seconds} s"
            time.sleep(0.005)
            self.listen()

    @property
    def safety(self) -> str:
        """The newest state of the safety machine, empty before the first."""
        states = [message for message in self.messages if isinstance(message, State)]
        return states[-1].safety if states else ""

    def close(self) -> None:
        """Release the sockets."""
        for each in (self._state, self._setpoint, self._console):
            each.close()


class Running:
    """A host in a thread of this process."""

    def __init__(self, config: RobotConfig, safety: SafetyConfig, folder: Path) -> None:
        self.endpoints = local_endpoints(folder)
        self.robot = FakeRobot(config, monotonic_ns)
        self.stop = threading.Event()
        self.summary: HostSummary | None = None
        self._arguments = (lambda: self.robot, config, safety, self.endpoints)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.peer = Peer(self.endpoints, config)
        self.peer.until(lambda: self.peer.safety == "ready")

    def _run(self) -> None:
        self.summary = run_host(*self._arguments, stop=self.stop)

    def join(self) -> HostSummary:
        """Ask it to stop, and wait."""
        self.stop.set()
        self._thread.join(5.0)
        assert self.summary is not None
        return self.summary


@pytest.fixture
def running(robot: RobotConfig, safety: SafetyConfig, tmp_path: Path) -> Iterator[Running]:
    host = Running(robot, safety, tmp_path)
    yield host
    host.join()
    host.peer.close()


def test_moves_when_enabled_and_stops_when_the_controller_dies(running: Running, robot: RobotConfig) -> None:
    peer = running.peer
    peer.lead(0.1, 0.05)
    assert peer.safety == "ready"
    assert peer.ask("enable").ok
    peer.lead(0.5, 0.05)
    assert peer.safety == "active"
    assert np.allclose(running.robot.read().joint_position, np.array(robot.home) + 0.05, atol=1e-6)
    died = time.monotonic()
    peer.until(lambda: peer.safety == "hold")
    assert time.monotonic() - died < 0.3
    peer.until(lambda: peer.safety == "protective_stop")
    assert time.monotonic() - died < 0.9
    texts = [message.reason for message in peer.messages if isinstance(message, SafetyReport)]
    assert "controller silent" in texts[-1]
    peer.lead(0.1, 0.0)
    assert not peer.ask("enable").ok
    assert peer.ask("reset").ok
    assert peer.ask("enable").ok
    peer.lead(0.3, 0.0)
    assert np.allclose(running.robot.read().joint_position, np.array(robot.home), atol=1e-6)


def test_says_how_its_loop_runs(running: Running) -> None:
    peer = running.peer

    def statistics() -> list[Event]:
        events = [message for message in peer.messages if isinstance(message, Event)]
        return [event for event in events if event.kind == "loop_stats"]

    peer.until(lambda: bool(statistics()))
    data = statistics()[0].data
    assert {"count", "late", "p50_us", "p99_us", "max_us", "work_p50_us", "work_p99_us", "overruns"} <= set(
        data
    )
    summary = running.join()
    assert summary.lateness["count"] > 100
    assert summary.final_safety == "off"


def test_ticks_that_are_missed_are_told(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    read = running.robot.read

    def slow() -> Measured:
        monkeypatch.undo()  # once
        time.sleep(0.05)
        return read()

    monkeypatch.setattr(running.robot, "read", slow)

    def overruns() -> list[Event]:
        events = [message for message in running.peer.messages if isinstance(message, Event)]
        return [event for event in events if event.kind == "overrun"]

    # A shared computer misses some of its own: the long one is looked for.
    running.peer.until(lambda: any(int(event.text.split()[0]) >= 8 for event in overruns()))
    assert overruns()[-1].source == "host"
    summary = running.join()
    assert summary.overruns >= 8


def test_its_loop_keeps_to_its_processors(robot: RobotConfig, safety: SafetyConfig, tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    host = Running(robot.model_copy(update={"cpus": (cpu,)}), safety, tmp_path)
    used: list[set[int]] = []
    read = host.robot.read

    def watched() -> Measured:
        used.append(os.sched_getaffinity(0))
        return read()

    host.robot.read = watched  # type: ignore[method-assign]
    host.peer.until(lambda: len(used) > 3)
    host.join()
    host.peer.close()
    assert used[-1] == {cpu}


def test_shutdown_is_a_controlled_stop_and_releases_the_driver(running: Running) -> None:
    running.peer.ask("enable")
    running.peer.lead(0.15, 0.09)
    assert running.peer.ask("shutdown").ok
    running.peer.until(lambda: running.summary is not None)
    assert running.robot.halted
    with pytest.raises(RobotError, match="not connected"):
        running.robot.read()
    states = [message for message in running.peer.messages if isinstance(message, State)]
    stream = np.array([state.joint_position_commanded for state in states])
    steps = np.abs(np.diff(stream, axis=0)).max(axis=1)
    assert steps.max() > 1e-4
    assert (np.diff(steps[steps.argmax() :]) < 1e-6).all(), "slower and slower, to rest"


def test_garbage_on_its_sockets_changes_nothing(running: Running) -> None:
    peer = running.peer
    peer.ask("enable")
    peer.send(0.0)
    for data in (b"", b"\xff" * 100, b"{}"):
        peer._setpoint._send([data])
        time.sleep(0.02)
    peer.lead(0.2, 0.0)
    assert peer.safety == "active"
    peer.until(lambda: any(isinstance(m, Event) and m.kind == "wire_fault" for m in peer.messages))


def test_what_came_before_an_enable_moves_nothing_whatever_its_stamp(running: Running) -> None:
    """A stamp a little ahead is believed, for clocks differ; yet one that waits must not be what an enable follows."""
    peer = running.peer
    peer.send(0.05, ahead_ns=40_000_000)
    assert peer.ask("enable").ok
    peer.messages.clear()
    peer.until(lambda: len(peer.messages) > 10)
    states = [message for message in peer.messages if isinstance(message, State)]
    assert not any(state.joint_velocity_commanded.any() for state in states)
    peer.lead(0.1, 0.05)
    assert peer.safety == "active", "what comes after it is followed"


def test_no_request_comes_in_by_the_socket_of_setpoints(running: Running) -> None:
    """Whoever may ask for motion can neither unlatch a stop, nor change the mode, nor end the host."""
    peer = running.peer
    assert peer.ask("e_stop").ok
    peer.until(lambda: peer.safety == "e_stop")
    actions: tuple[HostAction, ...] = ("reset", "enable", "reduce", "disable", "shutdown")
    for seq, action in enumerate(actions):
        peer._setpoint._send([encode(HostRequest(t_ns=monotonic_ns(), action=action, seq=seq))])
        time.sleep(0.05)  # the newest that has arrived is read: it must be this
        peer.lead(0.05, 0.05)
        assert peer.safety == "e_stop"
    peer.until(lambda: any(isinstance(m, Event) and m.kind == "wire_fault" for m in peer.messages))
    assert peer.ask("status").safety == "e_stop"


def test_an_occupied_address_is_one_clear_line_and_nothing_stays_open(
    running: Running, robot: RobotConfig, safety: SafetyConfig
) -> None:
    second = FakeRobot(robot, monotonic_ns)
    with pytest.raises(WireError, match=r"cannot bind .*state.*in use"):
        run_host(lambda: second, robot, safety, running.endpoints)
    assert second.halted
    running.peer.lead(0.05, 0.0)
    assert running.peer.ask("status").ok


def test_a_driver_that_does_not_open_frees_the_sockets(
    robot: RobotConfig, safety: SafetyConfig, tmp_path: Path
) -> None:
    class Absent(FakeRobot):
        def connect(self) -> None:
            """Nobody there."""
            raise RobotError("no arm at 192.0.2.1 port 1337 within 2 s")

    endpoints = local_endpoints(tmp_path)
    with pytest.raises(RobotError, match=r"no arm at 192\.0\.2\.1"):
        run_host(lambda: Absent(robot, monotonic_ns), robot, safety, endpoints)
    for address in (endpoints.state, endpoints.setpoint, endpoints.console):
        bound_within(address, seconds=2.0)


def bound_within(address: str, seconds: float) -> None:
    """ZMQ closes in a thread of its own: an address is free a moment later."""
    end = time.monotonic() + seconds
    while True:
        try:
            Publisher(address).close()
        except WireError:
            assert time.monotonic() < end, f"{address} still in use"
            time.sleep(0.01)
        else:
            return


PROGRAM = """
import sys
from reflexarc.configs.load import load_robot, load_safety
from reflexarc.robots.fake import FakeRobot
from reflexarc.robots.host_process import run_host
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.endpoints import NAMES, Endpoints

robot = load_robot("panda")
endpoints = Endpoints(**{name: f"ipc://{sys.argv[1]}/{name}" for name in NAMES})
fake = FakeRobot(robot, monotonic_ns)
summary = run_host(lambda: fake, robot, load_safety("panda"), endpoints)
print(summary.final_safety, fake.halted)
"""


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGINT)])
def test_signals_end_it_in_a_controlled_way(
    signals: tuple[signal.Signals, ...], robot: RobotConfig, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peer = Peer(local_endpoints(tmp_path), robot)
    try:
        peer.until(lambda: peer.safety == "ready", seconds=20.0)
        assert peer.ask("enable").ok
        peer.lead(0.15, 0.09)
        for number in signals:
            os.kill(process.pid, number)
            peer.lead(0.02, 0.09)
        out, err = process.communicate(timeout=10)
    finally:
        peer.close()
        process.kill()
    assert (process.returncode, out.strip(), err) == (0, "off True", "")
