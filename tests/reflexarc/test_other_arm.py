"""`reflexarc run` and `teleop` on a robot host whose driver is not the simulator's: real processes in real time."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.typist import Typist
from reflexarc.attached import check_task, is_simulated
from reflexarc.cli import main
from reflexarc.configs.action import tcp_delta_spec
from reflexarc.configs.errors import ReflexarcError, RobotError
from reflexarc.configs.load import load_robot, load_safety
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.processes import Processes
from reflexarc.robots.fake import FakeRobot
from reflexarc.robots.host_process import run_host
from reflexarc.stack import free_endpoints
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import (
    EpisodeStart,
    HostAction,
    HostReply,
    HostRequest,
    Observation,
    PolicyInfo,
    PolicyInfoRequest,
    State,
)
from reflexarc.wire.roles import Keys, find_key
from reflexarc.wire.sockets import Requester, Responder, Subscriber

PANDA = load_robot("panda")
# A busy machine keeps processes waiting; what the watchdogs do is tested in safety/.
PATIENT = load_safety("panda", ["driver_silence_s=0.5", "hold_after_s=0.5", "stop_after_s=3.0"])
WORDS = "put the cup on the saucer"


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """A host with a driver of somebody's own, and no arm process."""
    # What is free now, another run of tests may take meanwhile.
    endpoints = free_endpoints(20000 + os.getpid() % 70 * 100)
    with Processes(tmp_path_factory.mktemp("host")) as processes:
        driver = functools.partial(FakeRobot, PANDA, monotonic_ns)
        processes.start_loop("host", run_host, driver, PANDA, PATIENT, endpoints, keys=Keys())
        assert not is_simulated(endpoints)
        yield endpoints


def ask(robot: Endpoints, action: HostAction) -> HostReply:
    """A supervisor's request."""
    key = find_key(robot.console, "supervisor")
    with Requester(robot.console, HostReply) as console:
        return console.request(HostRequest(t_ns=monotonic_ns(), action=action, seq=0, key=key), 5.0)


def outcome(log: Path) -> dict[str, Any]:
    """Of a log that is whole and tells what it shows."""
    reader = EpisodeReader(log)
    assert reader.instruction == WORDS
    assert reader.outcome is not None
    assert any(isinstance(message, State) for _, message in reader.messages(["/state"]))
    return reader.outcome


@contextlib.contextmanager
def served(robot: Endpoints) -> Iterator[None]:
    """A policy server that says what it emits; without pictures nobody asks it for more."""
    ended = threading.Event()
    info = PolicyInfo(
        t_ns=0,
        model_id="none",
        action_spec=tcp_delta_spec(4, 0.1).model_dump_json(),
        cameras=["front"],
        image_height=96,
        image_width=96,
        tokenizer_id="",
    )

    def answer() -> None:
        with Responder(robot.policy, PolicyInfoRequest, Observation) as server:
            while not ended.is_set():
                server.wait(0.01)
                for client, _ in server.poll():
                    server.reply(client, info)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def press_in(robot: Endpoints, episode: str, over: threading.Event) -> None:
    """The emergency stop, once this episode has begun and the arm is enabled."""
    with Subscriber(robot.runner, EpisodeStart) as runner, Subscriber(robot.state, State) as states:
        begun = False
        while not over.is_set():
            begun = begun or any(start.episode == episode for start in runner.drain())
            state = states.latest()
            if begun and state is not None and state.safety == "active":
                ask(robot, "e_stop")
                return
            time.sleep(0.005)


def test_run_records_what_nobody_judged_and_leaves_an_emergency_stop_alone(
    robot: Endpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    over = threading.Event()
    presser = threading.Thread(target=press_in, args=(robot, "cups-0001", over))
    presser.start()
    port = robot.state.rsplit(":", 1)[1]
    arguments = ["run", "--task", "cups", "--instruction", WORDS, "--episodes", "3", "--time-limit", "2"]
    with served(robot):
        code = main([*arguments, "--port", port, "--out", str(tmp_path), "--json", str(tmp_path / "f.json")])
    over.set()
    presser.join()
    told = capsys.readouterr().err
    assert code == 1
    assert "cups-0002 does not begin, the robot host is in e_stop: e_stop requested; look why, then" in told
    assert ask(robot, "status").safety == "e_stop"
    logs = sorted((tmp_path / "episodes").glob("*.mcap"))
    assert [log.stem for log in logs] == ["cups-0000", "cups-0001"]
    first, second = map(outcome, logs)
    assert (first["success"], first["end"], first["judge"]) == (None, "time limit", "")
    assert second["success"] is None
    assert "e_stop" in second["end"]
    assert len(json.loads((tmp_path / "f.json").read_text())) == 2
    assert ask(robot, "reset").ok


def test_teleop_records_what_a_person_does_and_says(robot: Endpoints, tmp_path: Path) -> None:
    port = robot.state.rsplit(":", 1)[1]
    arguments = ["teleop", "--task", "cups", "--instruction", WORDS, "--episodes", "2", "--no-show"]
    typist = Typist([*arguments, "--port", port, "--out", str(tmp_path)], robot)

    def press(key: str, answer: str) -> None:
        """Until it is answered: a key that comes too soon after itself counts as held, not as pressed again."""
        pressed_s = 0.0

        def answered() -> bool:
            nonlocal pressed_s
            if time.monotonic() - pressed_s > 1.5:
                pressed_s = time.monotonic()
                typist.type(key)
            return answer in typist.shown

        typist.until(answered, answer)
        typist.until_shown(answer)

    def begin() -> None:
        press("\r", "running")
        typist.until(lambda: typist.state is not None and typist.state.safety == "active", "an enabled arm")

    try:
        typist.until_shown("start begins it")
        begin()
        press("\x7f", "redo")  # whoever took the cup away puts it back, and starts
        typist.until_shown("start begins it")
        ask(robot, "e_stop")
        press("\r", "cups-0000 does not begin, the robot host is in e_stop")
        typist.until_shown("start begins it")
        assert ask(robot, "status").safety == "e_stop"
        assert ask(robot, "reset").ok
        begin()
        assert typist.state is not None
        low = typist.tcp[2]
        typist.hold("r", 0.6)
        assert typist.tcp[2] > low + 0.005
        press("y", "success")
        typist.until_shown("start begins it")
        begin()
        ask(robot, "e_stop")
        typist.until_shown("not judged")
        typist.until(lambda: typist.exit_code is not None, "the end")
        assert typist.exit_code == 0
    finally:
        typist.end()
    lifted, stopped = (outcome(tmp_path / "episodes" / f"cups-{number:04d}.mcap") for number in (0, 1))
    assert (lifted["success"], lifted["judge"]) == (True, "person")
    assert stopped["success"] is None
    assert ask(robot, "reset").ok


@pytest.mark.parametrize(
    ("task", "instruction", "simulated", "said"),
    [
        ("lfit", "", True, "unknown task 'lfit'"),
        ("cups", "", False, "say it with --instruction"),
        ("cups", "  ", False, "say it with --instruction"),
        ("cups/blue", WORDS, False, "'cups/blue' cannot name files"),
        ("the cups", WORDS, False, "'the cups' cannot name files"),
    ],
)
def test_a_task_that_cannot_be_recorded_is_refused(
    task: str, instruction: str, simulated: bool, said: str
) -> None:
    check_task("lift", "", simulated=True)
    check_task("cups-2", WORDS, simulated=False)
    with pytest.raises(ReflexarcError, match=said):
        check_task(task, instruction, simulated=simulated)


def test_without_a_host_it_says_where_it_looked() -> None:
    with pytest.raises(RobotError, match=r"no robot host answers at tcp://.* name its --port"):
        is_simulated(free_endpoints(), wait_s=0.0)
