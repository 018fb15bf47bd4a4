"""`reflexarc replay LOG --robot` on a running robot host with its simulated arm: real processes, real time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from contracts.full_disk import record_on_a_full_disk
from reflexarc.cli import main
from reflexarc.configs.errors import ConfigError, LogError, RobotError, WireError
from reflexarc.configs.load import load_robot
from reflexarc.configs.recording import RecordingConfig
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.logged_path import JointPath, approach, logged_path
from reflexarc.processes import Processes
from reflexarc.robot_replay import replay_on_robot
from reflexarc.safety.states import LATCHED
from reflexarc.setup import load_setup
from reflexarc.stack import free_endpoints
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import F64, EpisodeStart, Setpoint, State
from reflexarc.wire.sockets import Publisher, Subscriber

PANDA = load_robot("panda")
HOME = np.array(PANDA.home)
TOLERANCE_RAD = 0.01


PATIENCE = (
    "safety.driver_silence_s=0.5",
    "safety.hold_after_s=0.5",
    "safety.stop_after_s=3.0",
    "safety.integrity.monitor_loss=ignore",
)
"""Of the host with processes that a busy machine keeps waiting: what the watchdogs do is tested elsewhere."""


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """`reflexarc robot`, started once for all replays."""
    endpoints = free_endpoints(
        51000 + os.getpid() % 80 * 100
    )  # what is free now, other tests may take meanwhile
    port = endpoints.state.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "reflexarc.cli", "robot", "--task", "lift", "--port", port]
    for patience in PATIENCE:
        command += ["--set", patience]
    process = subprocess.Popen([*command, "--out", str(tmp_path_factory.mktemp("robot"))])
    try:
        with Subscriber(endpoints.state, State) as states:
            while not states.wait(1.0):
                assert process.poll() is None, "the robot did not start; its reason stands above"
        yield endpoints
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def here(robot: Endpoints) -> F64:
    """Where the arm stands, (7,) rad; unlatched, whatever the test before has left behind."""
    if newest(robot).safety in LATCHED:
        reset(robot)
    return newest(robot).joint_position


def reset(robot: Endpoints) -> None:
    assert main(["console", "reset", "--port", robot.state.rsplit(":", 1)[1]]) == 0


def newest(robot: Endpoints) -> State:
    with Subscriber(robot.state, State) as states:
        assert states.wait(5)
        time.sleep(0.05)
        return states.drain()[-1]


def logged(path: Path, joints_at: Callable[[float], F64], seconds: float = 2.0) -> Path:
    """A log of an arm that was asked for, and did, `joints_at` (7,) of the time in seconds."""
    metadata = {"task": "lift", "seed": 0, "configs": {"robot": PANDA.model_dump(mode="json")}}
    with EpisodeWriter(path, metadata, fsync=False) as writer:
        start = EpisodeStart(
            t_ns=0, clock="virtual", episode=path.stem, instruction="wave", session="", metadata="{}"
        )
        writer.write("/episode", start)
        for tick in range(round(seconds * 100) + 1):
            t_ns, joints = tick * 10_000_000, joints_at(tick * 0.01)
            writer.write("/setpoint", setpoint(tick, t_ns, joints))
        writer.close({"success": True})
    return path


def setpoint(seq: int, t_ns: int, joints: F64) -> Setpoint:
    return Setpoint(
        t_ns=t_ns,
        clock="virtual",
        seq=seq,
        t_due_ns=t_ns,
        joint_position=joints,
        joint_velocity=np.zeros(7),
        gripper=1.0,
        source="policy",
    )


def wave(here: F64) -> Callable[[float], F64]:
    """0.2 rad to one side and back, from rest to rest in 2 s, with the two joints that stay clear of everything."""
    return lambda t: here + np.array([0.1, 0, 0, 0, 0, 0, 0.1]) * (1 - np.cos(np.pi * t))


def commanded(log: Path) -> tuple[F64, F64]:
    """(T,) s and (T, 7) rad: what safety let through while the arm was enabled."""
    states = [message for _, message in EpisodeReader(log).messages(["/state"])]
    live = [state for state in states if isinstance(state, State) and state.safety == "active"]
    times = np.array([state.t_ns for state in live]) * 1e-9
    return times, np.stack([state.joint_position_commanded for state in live])


def test_a_replay_goes_the_logged_way_and_its_log_can_be_replayed_again(
    robot: Endpoints, here: F64, tmp_path: Path
) -> None:
    source = logged(tmp_path / "wave.mcap", wave(here))
    first = replay_on_robot(source, robot, load_setup(), tmp_path / "first")
    assert first.differences == ()  # this log has no states to compare with
    _, way = commanded(Path(first.log))
    np.testing.assert_allclose(way[:, 0].max() - here[0], 0.2, atol=TOLERANCE_RAD)
    np.testing.assert_allclose(way[-1], here, atol=TOLERANCE_RAD)
    reader = EpisodeReader(Path(first.log))
    assert reader.instruction == "wave"
    assert reader.metadata["replay"] == {"log": str(source), "speed": 1.0}
    assert reader.outcome is not None
    assert reader.outcome["end"] == "replayed"
    asked = [message for _, message in reader.messages(["/setpoint"])]
    assert {message.source for message in asked if isinstance(message, Setpoint)} == {"replay"}

    again = replay_on_robot(Path(first.log), robot, load_setup(), tmp_path / "again")
    assert len(again.differences) == 7
    assert again.worst is not None
    assert again.worst.rad < TOLERANCE_RAD
    assert 0.0 < again.tcp_m < 0.01


def test_a_slower_replay_takes_longer_and_keeps_the_path(robot: Endpoints, here: F64, tmp_path: Path) -> None:
    source = logged(tmp_path / "wave.mcap", wave(here))
    result = replay_on_robot(source, robot, load_setup(), tmp_path / "slow", speed=0.4)
    assert result.seconds > result.logged_s / 0.4
    times, way = commanded(Path(result.log))
    np.testing.assert_allclose(way[:, 0].max() - here[0], 0.2, atol=TOLERANCE_RAD)
    np.testing.assert_allclose(way[:, 6] - here[6], way[:, 0] - here[0], atol=TOLERANCE_RAD)
    speed = np.abs(np.diff(way[:, 0]) / np.diff(times)).max()
    assert speed < 0.5 * (0.1 * np.pi)  # the log's peak is 0.1·π rad/s


def test_a_wrong_start_pose_is_refused_without_motion_and_approached_if_asked(
    robot: Endpoints, here: F64, tmp_path: Path
) -> None:
    there = here + np.array([0.3, 0, 0, 0, 0, 0, 0.1])
    source = logged(tmp_path / "elsewhere.mcap", wave(there), seconds=1.0)
    with pytest.raises(RobotError, match=r"joint1 is at .* 0\.300 rad apart \(limit 0\.05 rad\).*--approach"):
        replay_on_robot(source, robot, load_setup(), tmp_path / "refused")
    np.testing.assert_allclose(newest(robot).joint_position, here, atol=1e-3)
    assert list((tmp_path / "refused").rglob("*.mcap")) == []

    result = replay_on_robot(source, robot, load_setup(), tmp_path / "done", may_approach=True)
    times, way = commanded(Path(result.log))
    reached = int(np.argmax(np.abs(way[:, 0] - there[0]) < 1e-3))
    speed = np.abs(np.diff(way[:reached, 0]) / np.diff(times[:reached])).max()
    assert 0.1 < speed < 0.26
    np.testing.assert_allclose(way[-1], wave(there)(1.0), atol=TOLERANCE_RAD)


def test_safety_limits_a_log_that_was_tampered_with(robot: Endpoints, here: F64, tmp_path: Path) -> None:
    def leap(t: float) -> F64:
        return here if t < 0.5 else here + np.array([0.5, 0, 0, 0, 0, 0, 0])

    source = logged(tmp_path / "leap.mcap", leap, seconds=1.0)
    result = replay_on_robot(source, robot, load_setup(), tmp_path / "limited")
    assert result.limited
    times, way = commanded(Path(result.log))
    speed = np.abs(np.diff(way[:, 0]) / np.diff(times)).max()
    assert speed < 2.175  # the arm's published limit, rad/s; the log asks for 50

    broken = logged(tmp_path / "nan.mcap", lambda t: way[-1] if t < 0.5 else np.full(7, np.nan), seconds=1.0)
    with pytest.raises(RobotError, match=r"stopped at 0\.\d+ s of the log: protective_stop"):
        replay_on_robot(broken, robot, load_setup(), tmp_path / "broken")
    np.testing.assert_allclose(newest(robot).joint_position, way[-1], atol=TOLERANCE_RAD)
    outcome = EpisodeReader(tmp_path / "broken/episodes/replay-nan.mcap").outcome
    assert outcome is not None
    assert "protective_stop" in outcome["end"]

    with pytest.raises(RobotError, match="in protective_stop; look why, then `reflexarc console reset`"):
        replay_on_robot(source, robot, load_setup(), tmp_path / "latched")
    reset(robot)


def test_a_full_disk_ends_the_recording_and_not_the_motion(
    robot: Endpoints, here: F64, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(processes: Processes, endpoints: Endpoints, folder: Path, recording: RecordingConfig) -> None:
        processes.start("recorder", record_on_a_full_disk, folder, endpoints, recording=recording)

    monkeypatch.setattr("reflexarc.robot_replay.start_recorder", start)
    there = here - np.array([0.2, 0, 0, 0, 0, 0, 0.2])
    # 0.2 rad back to the middle in a second, and it stays there
    source = logged(tmp_path / "away.mcap", lambda t: 2 * here - wave(here)(min(t, 1.0)))
    with pytest.raises(LogError, match=r"replay-away\.mcap: writing the episode log failed: .* bytes free"):
        replay_on_robot(source, robot, load_setup(), tmp_path / "full")
    state = newest(robot)
    assert state.safety == "hold"  # ended as any other replay does
    np.testing.assert_allclose(state.joint_position, there, atol=TOLERANCE_RAD)
    torn = EpisodeReader(tmp_path / "full/episodes/replay-away.mcap")
    assert torn.is_cut
    assert sum(1 for _ in torn.messages()) > 20


def test_ctrl_c_holds_the_arm_and_closes_the_log(robot: Endpoints, here: F64, tmp_path: Path) -> None:
    source = logged(tmp_path / "long.mcap", wave(here), seconds=20.0)
    port = robot.state.rsplit(":", 1)[1]
    # A background job may have been told to ignore Ctrl-C, and a child inherits that.
    main = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from reflexarc.cli import main; sys.exit(main())"
    )
    arguments = ["replay", str(source), "--robot", "--port", port, "--out", str(tmp_path / "out")]
    process = subprocess.Popen([sys.executable, "-c", main, *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while abs(newest(robot).joint_position[0] - here[0]) < 0.05:
        assert process.poll() is None, "the replay ended by itself"
        assert time.monotonic() < deadline, "the arm does not move"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().endswith("reflexarc: interrupted")
    state = newest(robot)
    assert state.safety == "hold"
    assert not np.any(np.abs(state.joint_velocity_commanded) > 1e-4)
    outcome = EpisodeReader(tmp_path / "out/episodes/replay-long.mcap").outcome
    assert outcome is not None
    assert outcome["end"] == "interrupted"


def test_the_command_prints_the_difference_and_writes_it(
    robot: Endpoints, here: F64, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = logged(tmp_path / "wave.mcap", wave(here), seconds=1.0)
    figures = tmp_path / "figures.json"
    port = robot.state.rsplit(":", 1)[1]
    arguments = ["replay", str(source), "--robot", "--port", port, "--speed", "0.8"]
    assert main([*arguments, "--out", str(tmp_path), "--json", str(figures)]) == 0
    assert re.search(r"1\.00 s of the log in \d\.\d\d s; safety limited:", capsys.readouterr().out)
    assert json.loads(figures.read_text())["speed"] == 0.8


def test_what_cannot_be_replayed_is_said_before_anything_is_asked_for(tmp_path: Path) -> None:
    nobody = free_endpoints()
    good = logged(tmp_path / "wave.mcap", wave(HOME))
    with pytest.raises(ConfigError, match=r"speed is 1\.5 of the logged one; it must be within 0\.1\.\.1"):
        replay_on_robot(good, nobody, load_setup(), tmp_path / "out", speed=1.5)
    bare = tmp_path / "bare.mcap"
    with EpisodeWriter(bare, {"task": "lift"}, fsync=False) as writer:
        writer.close({})
    with pytest.raises(LogError, match=r"bare\.mcap: 0 setpoints in the log"):
        replay_on_robot(bare, nobody, load_setup(), tmp_path / "out")
    other = load_setup(robot="ur5e", safety="ur5e")
    with pytest.raises(LogError, match=r"the log is of joints joint1, .*; robot 'ur5e' has "):
        replay_on_robot(good, nobody, other, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["a.mcap", "--sim", "--robot"], "--sim, --robot and --policy are three ways to replay; choose one"),
        (["a.mcap", "b.mcap", "--robot"], "--robot replays one log at a time; 2 are named"),
        (["a.mcap", "--robot", "--speed", "0"], "speed is 0 of the logged one"),
    ],
)
def test_options_that_contradict_each_other_are_said(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", *options, "--out", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_arm_that_a_controller_drives_is_left_to_it(tmp_path: Path) -> None:
    endpoints = free_endpoints()
    source = logged(tmp_path / "wave.mcap", wave(HOME))
    with (
        Publisher(endpoints.controller),
        pytest.raises(WireError, match=r"cannot bind controller at .*: it is in use; end the other run"),
    ):
        replay_on_robot(source, endpoints, load_setup(), tmp_path / "out")
    assert list((tmp_path / "out").rglob("*.mcap")) == []


def test_a_path_goes_through_its_points_smoothly_and_stands_at_both_ends() -> None:
    times = np.array([0, 100, 200, 400], dtype=np.int64) * 1_000_000
    joints = np.array([[0.0], [0.1], [0.3], [0.3]])
    path = JointPath(times, joints, np.array([1.0, 1.0, 0.0, 0.0]))
    for row, time_ns in enumerate(times.tolist()):
        np.testing.assert_allclose(path.at(time_ns)[0], joints[row], atol=1e-12)
    for time_ns in (-50_000_000, 900_000_000):
        assert path.at(time_ns)[1].tolist() == [0.0]
    grid = np.arange(0, 400_000_000, 1_000_000)
    places = np.array([path.at(int(each))[0][0] for each in grid])
    rates = np.array([path.at(int(each))[1][0] for each in grid])
    np.testing.assert_allclose(np.gradient(places, 1e-3)[1:-1], rates[1:-1], atol=0.05)
    assert [path.at(t)[2] for t in (199_000_000, 201_000_000)] == [1.0, 0.0]


def test_the_way_to_the_start_keeps_its_peak_speed(tmp_path: Path) -> None:
    way = approach(np.zeros(2), 0.3, np.array([0.5, -1.0]), 0.25)
    seconds = way.times_ns * 1e-9
    rates = np.diff(way.joints, axis=0) / np.diff(seconds)[:, None]
    assert 0.245 < np.abs(rates).max() <= 0.25
    np.testing.assert_allclose(way.joints[-1], [0.5, -1.0])
    assert set(way.gripper.tolist()) == {0.3}
    again = logged_path(EpisodeReader(logged(tmp_path / "w.mcap", wave(HOME))))
    assert (again.begin_ns, again.end_ns) == (0, 2_000_000_000)
