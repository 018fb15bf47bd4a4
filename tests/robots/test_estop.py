"""Emergency stop inputs: pressed, unreadable and silent are the same; in the host they latch. Roles; the monitor."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.configs.watch import EStopConfig
from reflexarc.robots.estop import FileInput, HeartbeatInput, open_inputs
from reflexarc.robots.fake import FakeRobot
from reflexarc.robots.host_process import run_host
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.endpoints import NAMES, Endpoints
from reflexarc.wire.messages import Heartbeat, HostAction, HostReply, HostRequest
from reflexarc.wire.roles import Keys
from reflexarc.wire.sockets import Publisher, Push, Requester

MS = 1_000_000


def seen(button: FileInput, pressed: bool) -> bool:
    """Whether the button comes to show that; its file is read by a thread."""
    deadline = monotonic_ns() + 5_000 * MS
    while button.pressed(monotonic_ns()) is not pressed and monotonic_ns() < deadline:
        time.sleep(0.002)
    return button.pressed(monotonic_ns()) is pressed


@pytest.fixture
def button(tmp_path: Path) -> Iterator[FileInput]:
    made = FileInput(tmp_path / "value", silence_s=0.5)
    yield made
    made.close()


def test_a_file_that_is_not_closed_or_not_there_is_pressed(button: FileInput, tmp_path: Path) -> None:
    line = tmp_path / "value"
    assert button.pressed(monotonic_ns()), "it has answered: there is none"
    for content, pressed in (
        ("1\n", False),
        ("0\n", True),
        ("1", False),
        ("", True),
        ("1", False),
        ("10", True),
    ):
        line.write_text(content)
        assert seen(button, pressed)
    line.write_text("1")
    assert seen(button, False)
    line.write_bytes(b"\xff\xfe")
    assert seen(button, True)


def test_a_file_that_hangs_is_pressed_and_keeps_nobody_waiting(button: FileInput, tmp_path: Path) -> None:
    line, pipe = tmp_path / "value", tmp_path / "pipe"
    line.write_text("1")
    assert seen(button, False)
    os.mkfifo(pipe)  # opening one waits for somebody who writes, as a network that is gone does
    pipe.replace(line)
    assert seen(button, True)
    hung = FileInput(line, silence_s=0.05)
    assert hung.pressed(monotonic_ns()), "not even a first answer"
    for each in (hung, button):
        each.close()
    with line.open("w") as writer:  # lets both threads end
        writer.write("1")


def test_a_process_that_stood_still_has_not_been_told_that_the_button_is_pressed(
    button: FileInput, tmp_path: Path
) -> None:
    (tmp_path / "value").write_text("1")
    assert seen(button, False)
    button.close()
    button._thread.join()
    last = monotonic_ns()
    assert not button.pressed(last + 2_000 * MS), "2 s without a tick: the thread stood still, too"
    assert not button.pressed(last + 2_400 * MS)
    assert button.pressed(last + 2_600 * MS), "but it goes on standing"


def test_a_heartbeat_must_come_and_keep_coming(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/estop"
    button = HeartbeatInput(address, "panel", 0.1)
    other = Push(address)
    try:
        assert button.pressed(0), "never heard"
        for peer, pressed in (("stranger", True), ("panel", False)):
            for _ in range(50):
                other.send(Heartbeat(t_ns=0, peer=peer, seq=0))
                time.sleep(0.01)
                if button.pressed(0) is False:
                    break
            assert button.pressed(0) is pressed
        assert not button.pressed(100 * MS)
        assert button.pressed(101 * MS)
    finally:
        button.close()
        other.close()


def test_inputs_are_made_by_config(tmp_path: Path) -> None:
    config = EStopConfig(files=(str(tmp_path / "a"), str(tmp_path / "b")), heartbeat="panel")
    inputs = open_inputs(config, f"ipc://{tmp_path}/estop")
    assert [found.name for found in inputs] == [
        str(tmp_path / "a"), str(tmp_path / "b"), "heartbeat of panel"
    ]  # fmt: skip
    for found in inputs:
        found.close()
    assert open_inputs(EStopConfig(), "") == []


class Host:
    """A host in a thread with an emergency stop file, roles on its console, and a monitor that must be alive."""

    def __init__(self, folder: Path, robot: RobotConfig, safety: SafetyConfig) -> None:
        self.button = folder / "value"
        self.button.write_text("1")
        integrity = safety.integrity.model_copy(update={"monitor_silence_s": 0.3})
        relaxed = safety.model_copy(
            update={
                "driver_silence_s": 0.5,
                "estop": EStopConfig(files=(str(self.button),)),
                "integrity": integrity,
            }
        )
        endpoints = Endpoints(**{name: f"ipc://{folder}/{name}" for name in NAMES})  # type: ignore[arg-type]
        self.keys = Keys()
        self.stop = threading.Event()
        self.console: Requester[HostReply] = Requester(endpoints.console, HostReply)
        self.monitor = Publisher(endpoints.monitor)
        self.beating = threading.Event()
        self.beating.set()
        self._threads = [
            threading.Thread(
                target=run_host,
                args=(lambda: FakeRobot(robot, monotonic_ns), robot, relaxed, endpoints),
                kwargs={"stop": self.stop, "keys": self.keys, "monitored": True},
            ),
            threading.Thread(target=self._beat),
        ]
        for thread in self._threads:
            thread.start()

    def _beat(self) -> None:
        while not self.stop.wait(0.02):
            if self.beating.is_set():
                self.monitor.send(Heartbeat(t_ns=monotonic_ns(), peer="monitor", seq=0))

    def ask(self, action: HostAction, key: str = "") -> HostReply:
        """A request and its answer."""
        return self.console.request(HostRequest(t_ns=0, action=action, seq=1, key=key), 5.0)

    def until(self, safety: str) -> HostReply:
        """Ask for the status until it is `safety`."""
        deadline = monotonic_ns() + 5_000 * MS
        while (reply := self.ask("status")).safety != safety:
            assert monotonic_ns() < deadline, f"still {reply.safety}: {reply.text}"
        return reply

    def enable(self) -> None:
        """With the operator's key, once the monitor was heard."""
        deadline = monotonic_ns() + 5_000 * MS
        while not (reply := self.ask("enable", self.keys.by_role["operator"])).ok:
            assert monotonic_ns() < deadline, reply.text
        self.until("active")

    def close(self) -> None:
        """End the host."""
        self.stop.set()
        for thread in self._threads:
            thread.join()
        self.console.close()
        self.monitor.close()


@pytest.fixture
def host(
    tmp_path: Path, robot: RobotConfig, safety: SafetyConfig, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Host]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    made = Host(tmp_path, robot, safety)
    yield made
    made.close()


def test_the_button_latches_and_only_a_supervisor_resets(host: Host) -> None:
    host.enable()
    host.button.write_text("0")
    assert "requested" in host.until("e_stop").text
    assert not host.ask("reset", host.keys.by_role["operator"]).ok
    host.ask("reset", host.keys.by_role["supervisor"])
    host.until("e_stop")  # still pressed
    host.button.write_text("1")
    deadline = monotonic_ns() + 5_000 * MS
    while not host.ask("reset", host.keys.by_role["supervisor"]).ok:
        assert monotonic_ns() < deadline
    host.until("ready")


def test_a_button_whose_file_hangs_stops_the_arm_and_not_the_host(host: Host, tmp_path: Path) -> None:
    host.enable()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pipe").replace(host.button)
    assert "requested" in host.until("e_stop").text, "and the host answers"
    with host.button.open("w") as writer:  # lets the thread go on, with a file again
        host.button.unlink()
        host.button.write_text("1")
        writer.write("1")


def test_without_a_key_nothing_is_enabled_but_everybody_may_stop(host: Host) -> None:
    refused = host.ask("enable")
    assert not refused.ok
    assert "takes the key of the operator" in refused.text
    host.enable()
    assert host.ask("hold").ok
    assert host.ask("e_stop").ok
    host.until("e_stop")


def test_a_monitor_that_dies_stops_the_arm_and_keeps_it_stopped(host: Host) -> None:
    host.enable()
    host.beating.clear()
    assert "the independent monitor has been silent" in host.until("protective_stop").text
    host.ask("reset", host.keys.by_role["supervisor"])
    refused = host.ask("enable", host.keys.by_role["operator"])
    assert not refused.ok
    assert "monitor" in refused.text
