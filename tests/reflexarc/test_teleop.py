"""`reflexarc teleop` as a person meets it: real processes in real time, and keys typed into a terminal."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts.controller_bench import answer, moves
from contracts.typist import Typist
from reflexarc.cli import main
from reflexarc.configs.action import tcp_delta_spec
from reflexarc.configs.load import load_robot
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.sampling import sample_episode
from reflexarc.stack import free_endpoints
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import Event, Observation, PolicyInfo, PolicyInfoRequest, Setpoint, TeleopCommand
from reflexarc.wire.sockets import Responder

SPEC = tcp_delta_spec(4, 0.1)
CAMERAS = ["front", "wrist"]


PATIENCE = (
    "safety.driver_silence_s=0.5",
    "safety.hold_after_s=0.5",
    "safety.stop_after_s=3.0",
    "safety.integrity.monitor_loss=ignore",
)
"""Of the host with processes that a busy machine keeps waiting: what the watchdogs do is tested elsewhere."""


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """`reflexarc robot`, started once; sessions come and go beside it."""
    # What is free now, another run of tests may take meanwhile.
    endpoints = free_endpoints(13000 + os.getpid() % 70 * 100)
    port = re.search(r":(\d+)$", endpoints.state)
    assert port is not None
    folder = tmp_path_factory.mktemp("robot")
    command = [sys.executable, "-m", "reflexarc.cli", "robot", "--task", "lift", "--port", port[1]]
    for patience in PATIENCE:
        command += ["--set", patience]
    process = subprocess.Popen([*command, "--out", str(folder)], stdout=subprocess.DEVNULL)
    yield endpoints
    process.terminate()  # not Ctrl-C, which a background job may be told to ignore
    process.wait(30)


@contextlib.contextmanager
def at_terminal(robot: Endpoints, out: Path, *options: str) -> Iterator[Typist]:
    """A session in a terminal, once it is ready for its first episode."""
    port = robot.state.rsplit(":", 1)[1]
    arguments = ["teleop", "--task", "lift", "--port", port, "--out", str(out), "--no-show", *options]
    typist = Typist(arguments, robot)
    try:
        typist.until_shown("start begins it")
        yield typist
    finally:
        typist.end()


def begin(typist: Typist) -> None:
    """Start an episode and wait until the arm can be driven."""
    typist.type("\r")
    typist.until_shown("running")
    typist.until(lambda: typist.state is not None and typist.state.safety == "active", "an enabled arm")


def events(log: Path, kind: str) -> list[Event]:
    found = [message for _, message in EpisodeReader(log).messages(["/event"])]
    return [event for event in found if isinstance(event, Event) and event.kind == kind]


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """What a session left. code: of its exit; echoes: whether the terminal was given back as it was."""

    folder: Path
    code: int | None
    echoes: bool
    still: bool

    def log(self, name: str) -> Path:
        return self.folder / "episodes" / f"{name}.mcap"


def ended(typist: Typist, folder: Path) -> Ended:
    """Wait for the session's end, and for the arm's rest."""
    typist.until(lambda: typist.exit_code is not None, "the command's end")
    typist.until(typist.is_still, "the arm at rest")
    modes = termios.tcgetattr(typist.terminal)[3]
    both = termios.ECHO | termios.ICANON
    return Ended(folder, typist.exit_code, modes & both == both, typist.is_still())


@pytest.fixture(scope="module")
def by_hand(robot: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Everything that a person does alone, in one session: to start one takes longer than to drive."""
    folder = tmp_path_factory.mktemp("by-hand")
    with at_terminal(robot, folder, "--episodes", "3") as typist:
        begin(typist)
        typist.until(lambda: bool(typist.focus.any()), "the block")
        above = np.array([0.0, 0.0, 0.1])
        typist.go_to(lambda: typist.focus[0] + above, 0.012)
        typist.go_to(lambda: typist.focus[0], 0.012)
        typist.hold("c", 1.0)
        typist.hold("r", 6.0)
        typist.until_shown("success")
        typist.until_shown("kept")
        typist.until_shown("start begins it")
        begin(typist)
        typist.hold("w", 0.5)
        typist.type("\x7f")  # redo: the same layout again, the log thrown out
        typist.until_shown("redo")
        typist.until_shown("running")
        typist.until(lambda: typist.state is not None and typist.state.safety == "active", "an enabled arm")
        typist.hold("w", 0.5)
        typist.type("n")
        typist.until_shown("failed (fail)")
        typist.until_shown("start begins it")
        typist.type("D")
        typist.until_shown("discarded")
        begin(typist)
        typist.hold("w", 0.3)
        typist.type("y")
        typist.until_shown("success")
        typist.until_shown("start begins it")
        typist.type("Q")
        return ended(typist, folder)


def test_a_block_is_lifted_by_keys_and_the_log_trains_like_any_other(by_hand: Ended) -> None:
    log = by_hand.log("lift-0000")
    reader = EpisodeReader(log)
    assert reader.outcome is not None
    assert (reader.outcome["success"], reader.outcome["judge"]) == (True, "")
    assert reader.metadata["policy"] == "teleop"
    assert reader.metadata["configs"]["teleop"]["name"] == "keyboard"
    assert [event.data["source"] for event in events(log, "control")] == ["teleop"]
    samples = sample_episode(reader, SPEC, CAMERAS, sources={"teleop"})
    assert samples.mask[:, 0].sum() > 20
    moved = np.linalg.norm(samples.actions[:, 0, :3][samples.mask[:, 0]], axis=1).sum()
    assert moved > 0.2  # metres, by the labels
    assert samples.actions[samples.mask][:, 6].min() == 0.0


def test_episode_keys_label_repeat_and_delete(by_hand: Ended) -> None:
    assert by_hand.code == 0
    assert by_hand.echoes
    kept = sorted((by_hand.folder / "episodes").glob("*.mcap"))
    assert [path.name for path in kept] == ["lift-0000.mcap", "lift-0001.mcap"]
    outcome = EpisodeReader(kept[1]).outcome
    assert outcome is not None
    assert (outcome["success"], outcome["judge"]) == (True, "person")
    thrown_out = [
        EpisodeReader(path).outcome for path in sorted((by_hand.folder / "discarded").glob("*.mcap"))
    ]
    assert [outcome and outcome["end"] for outcome in thrown_out] == ["redo", "fail"]


class Served(threading.Thread):
    """A policy server that moves 5 mm up at each step."""

    def __init__(self, endpoints: Endpoints) -> None:
        super().__init__(daemon=True)
        self._address = endpoints.policy
        self.stop = threading.Event()

    def run(self) -> None:
        info = PolicyInfo(
            t_ns=0,
            model_id="up",
            action_spec=SPEC.model_dump_json(),
            cameras=CAMERAS,
            image_height=96,
            image_width=96,
            tokenizer_id="",
        )
        with Responder(self._address, PolicyInfoRequest, Observation) as server:
            while not self.stop.is_set():
                server.wait(0.01)
                for client, request in server.poll():
                    asked = isinstance(request, Observation)
                    server.reply(client, self._chunk(request) if asked else info)

    def _chunk(self, observation: Observation):  # type: ignore[no-untyped-def]
        chunk = answer(observation, moves(4, (0.0, 0.0, 0.005)), SPEC)
        return msgspec.structs.replace(chunk, clock="monotonic", t_ns=monotonic_ns())


def assert_no_jump(setpoints: list[Setpoint]) -> None:
    """No setpoint differs from the one before by more than the arm may move, or change its velocity, until then."""
    joints = load_robot("panda").joints
    until_s = np.diff([each.t_due_ns for each in setpoints])[:, None] * 1e-9
    moved = np.abs(np.diff([each.joint_position for each in setpoints], axis=0))
    changed = np.abs(np.diff([each.joint_velocity for each in setpoints], axis=0))
    assert np.all(until_s > 0)
    assert np.all(moved <= until_s * [joint.velocity for joint in joints])
    assert np.all(changed <= until_s * [joint.acceleration for joint in joints])
    assert moved.max() > 1e-4  # it did move


@pytest.fixture(scope="module")
def beside_a_policy(robot: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """An episode in which a person takes the arm and gives it back; in the next one the device dies in their hands."""
    folder = tmp_path_factory.mktemp("beside-a-policy")
    served = Served(robot)
    served.start()
    try:
        with at_terminal(robot, folder, "--episodes", "2", "--policy", "served") as typist:
            begin(typist)
            typist.until_shown("the policy has the arm")
            time.sleep(0.5)
            typist.hold("a", 0.7)
            typist.until_shown("you have the arm")
            time.sleep(0.5)  # lets go: still the person's
            typist.type("g")
            typist.until_shown("the policy has the arm")
            time.sleep(1.0)
            typist.type("y")
            typist.until_shown("success")
            typist.until_shown("start begins it")
            begin(typist)
            typist.hold("r", 0.6)
            typist.until_shown("you have the arm")
            os.kill(device_process(typist), signal.SIGKILL)
            typist.until_shown("the teleop process died")
            return ended(typist, folder)
    finally:
        served.stop.set()
        served.join(5)


def test_a_person_takes_the_arm_from_a_policy_and_gives_it_back(beside_a_policy: Ended) -> None:
    log = beside_a_policy.log("lift-0000")
    who = events(log, "control")
    assert [event.data["source"] for event in who] == ["policy", "teleop", "hold", "policy"]
    reader = EpisodeReader(log)
    person = sample_episode(reader, SPEC, CAMERAS, sources={"teleop"})
    policy = sample_episode(reader, SPEC, CAMERAS, sources={"policy"})
    assert person.mask.any()
    assert policy.mask.any()
    assert not (person.mask & policy.mask).any()
    sideways, up = person.actions[person.mask][:, 1].sum(), policy.actions[policy.mask][:, 2].sum()
    assert sideways > 0.01  # `a` is to the left
    assert up > 0.01
    setpoints = [message for _, message in reader.messages(["/setpoint"])]
    between = [
        setpoint
        for setpoint in setpoints
        if isinstance(setpoint, Setpoint) and who[1].t_ns <= setpoint.t_ns < who[2].t_ns
    ]
    assert {setpoint.source for setpoint in between} == {"teleop"}
    assert_no_jump([each for each in setpoints if isinstance(each, Setpoint)])
    commands = [message for _, message in reader.messages(["/teleop"]) if isinstance(message, TeleopCommand)]
    assert np.all(np.diff([command.seq for command in commands]) == 1)
    assert any(command.engaged for command in commands)
    assert ["give_back"] in [command.keys for command in commands]


def test_a_dead_device_process_leaves_the_arm_at_rest_and_the_terminal_as_it_was(
    beside_a_policy: Ended,
) -> None:
    assert beside_a_policy.code == 1
    assert beside_a_policy.still
    assert beside_a_policy.echoes
    who = [event.data["source"] for event in events(beside_a_policy.log("lift-0001"), "control")]
    assert who[:2] == ["policy", "teleop"]  # whoever drove when it died


def device_process(typist: Typist) -> int:
    """The child that reads the terminal."""
    children = Path(f"/proc/{typist.pid}/task/{typist.pid}/children").read_text().split()
    readers = [
        child
        for child in children
        if any(os.readlink(fd) == "/dev/tty" for fd in Path(f"/proc/{child}/fd").iterdir())
    ]
    assert len(readers) == 1
    return int(readers[0])


def test_without_a_terminal_it_says_so(robot: Endpoints, tmp_path: Path) -> None:
    port = robot.state.rsplit(":", 1)[1]
    done = subprocess.run(
        [sys.executable, "-m", "reflexarc.cli", "teleop", "--port", port, "--out", str(tmp_path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("reflexarc: the teleop process died")
    assert "needs a terminal" in done.stderr
    assert "choose another --device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device", "joystick"], "unknown teleop preset 'joystick'"),
        (["--task", "lfit"], "unknown task 'lfit'"),
        (["--set", "teleop.linear_speed=9"], "linear_speed"),
        (["--set", "teleop.bindings.w=up"], "unknown action 'up'"),
    ],
)
def test_mistakes_are_said_before_anything_starts(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["teleop", "--out", str(tmp_path / "out"), *options]) == 1
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()
