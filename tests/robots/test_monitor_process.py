"""The monitor's process: it stops past the host, releases only after a reset, and a blind one is no guard."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import NamedBox, SafetyConfig
from reflexarc.configs.watch import MonitorConfig
from reflexarc.robots.monitor_process import PERIOD_NS, _Process
from reflexarc.wire.endpoints import NAMES, Endpoints
from reflexarc.wire.messages import Event, Heartbeat, Measured, SafetyState, State
from reflexarc.wire.sockets import Publisher, Subscriber


class Line:
    """An arm's own line: what it shows, and what it was told by it."""

    def __init__(self) -> None:
        self.measured: Measured | None = None
        self.told: list[str] = []

    def read(self) -> Measured | None:
        """What stands there."""
        return self.measured

    def stop(self, reason: str) -> None:
        """Note it."""
        self.told.append(reason)

    def release(self) -> None:
        """Note it."""
        self.told.append("")

    def close(self) -> None:
        """Nothing to release."""


class Stand:
    """A monitor's process, turn by turn, on a clock of its own, beside a host that says what it is told to."""

    def __init__(
        self, robot: RobotConfig, safety: SafetyConfig, folder: Path, stack: contextlib.ExitStack
    ) -> None:
        endpoints = Endpoints(**{name: f"ipc://{folder}/{name}" for name in NAMES})  # type: ignore[arg-type]
        self.line, self.now_ns = Line(), 0
        self.process = _Process(robot, safety, self.line, endpoints, stack)
        self.host = stack.enter_context(Publisher(endpoints.state))
        self._heard: Subscriber[Heartbeat | Event] = stack.enter_context(
            Subscriber(endpoints.monitor, Heartbeat, Event)
        )
        self.safety: SafetyState = "active"
        zeros = np.zeros(len(robot.joints))
        self.reading = Measured(
            t_ns=0, joint_position=np.array(robot.home), joint_velocity=zeros, joint_effort=zeros,
            wrench_tcp=np.zeros(6), gripper=1.0,
        )  # fmt: skip
        pose = np.array([0.5, 0, 0.3, 1, 0, 0, 0.0])
        self.state = State(
            t_ns=0, seq=0, t_state_ns=0, joint_position=zeros, joint_velocity=zeros, joint_effort=zeros,
            joint_position_commanded=zeros, joint_velocity_commanded=zeros, pose_base_tcp=pose,
            pose_base_tcp_commanded=pose, wrench_tcp=np.zeros(6), gripper=1.0, gripper_commanded=1.0,
            safety="active",
        )  # fmt: skip

    def turn(self, *, sees: bool = True, force: float = 0.0, base: float = 0.0) -> None:
        """One turn, 10 ms later: the host lives, and the arm, turned by `base` rad, shows a reading if it is seen."""
        self.now_ns += PERIOD_NS
        self.host.send(msgspec.structs.replace(self.state, t_ns=self.now_ns, safety=self.safety))
        if sees:
            wrench = np.array([0, 0, force, 0, 0, 0.0])
            position = self.reading.joint_position.copy()
            position[0] += base
            self.line.measured = msgspec.structs.replace(
                self.reading, t_ns=self.now_ns, wrench_tcp=wrench, joint_position=position
            )
        time.sleep(0.001)  # the state travels
        self.process.turn(self.now_ns)

    def until(self, done: Callable[[], bool]) -> None:
        """Turns until it is so; sockets find each other after a moment."""
        end = time.monotonic() + 10.0
        while not done():
            assert time.monotonic() < end
            self.turn()

    def heard(self) -> tuple[int, list[str]]:
        """How many heartbeats came since the last call, and what kinds of events."""
        time.sleep(0.05)
        messages = self._heard.drain()
        kinds = [message.kind for message in messages if isinstance(message, Event)]
        return len(messages) - len(kinds), kinds


@pytest.fixture
def stand(robot: RobotConfig, safety: SafetyConfig, tmp_path: Path) -> Iterator[Stand]:
    with contextlib.ExitStack() as stack:
        made = Stand(robot, safety, tmp_path, stack)
        made.until(lambda: made.heard()[0] > 0 and made.process._state is not None)
        yield made


def test_it_stops_past_the_host_and_releases_after_a_reset_only(stand: Stand) -> None:
    for _ in range(MonitorConfig().readings):
        stand.turn(force=1e4)
    assert stand.line.told == ["the wrist is pressed far beyond its ceiling"]
    stand.heard()
    for _ in range(30):
        stand.turn()
    assert "" not in stand.line.told, "all is right again, but nobody has reset"
    assert len(stand.line.told) > 2, "one message may be lost"
    stand.safety = "ready"
    stand.until(lambda: stand.line.told[-1] == "")
    assert stand.heard()[1] == ["monitor_release"]


def test_an_elbow_in_a_keep_out_is_stopped_past_the_host(
    robot: RobotConfig, safety: SafetyConfig, tmp_path: Path
) -> None:
    shelf = NamedBox(
        name="shelf", lower=(0.0, 0.12, 0.5), upper=(0.3, 0.5, 0.75), source="a box of this test"
    )
    watched = safety.model_copy(update={"keep_out": (*safety.keep_out, shelf)})
    with contextlib.ExitStack() as stack:
        stand = Stand(robot, watched, tmp_path, stack)
        stand.until(lambda: stand.heard()[0] > 0 and stand.process._state is not None)
        for angle in np.arange(0.0, 0.6, 0.02):
            stand.turn(base=float(angle))
        assert stand.line.told[0].endswith("is in keep-out shelf")


def test_a_monitor_that_sees_nothing_of_the_arm_is_no_guard(stand: Stand) -> None:
    """The host stops, and does not enable, without its heartbeat."""
    stand.heard()
    blind_ns = round(MonitorConfig().blind_s * 1e9)
    for _ in range(blind_ns // PERIOD_NS):
        stand.turn(sees=False)
    assert stand.heard() == (blind_ns // PERIOD_NS, []), "a reading may be late"
    for _ in range(20):
        stand.turn(sees=False)
    assert stand.heard() == (0, ["monitor_blind"])
    stand.turn()
    assert stand.heard() == (1, ["monitor_blind"])


def test_before_the_first_reading_there_is_no_heartbeat(
    robot: RobotConfig, safety: SafetyConfig, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        stand = Stand(robot, safety, tmp_path, stack)
        for _ in range(50):
            stand.turn(sees=False)
        assert stand.heard() == (0, [])
        stand.until(lambda: stand.heard()[0] > 0)
