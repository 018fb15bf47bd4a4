"""The runner beside a robot host and a recorder: what a latched stop forbids, and what a broken recording does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reflexarc.attached import is_simulated
from reflexarc.configs.errors import RobotError
from reflexarc.configs.load import load_robot, load_safety
from reflexarc.robots.fake import FakeRobot
from reflexarc.robots.host_process import run_host
from reflexarc.runner import EpisodeFigures, LatchedError, Runner, Verdict
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.endpoints import NAMES, Endpoints
from reflexarc.wire.messages import Event, SimAnswer, SimQuery
from reflexarc.wire.sockets import Publisher, Responder

PANDA = load_robot("panda")
PATIENT = load_safety("panda", ["driver_silence_s=0.3"])
"""For threads that a busy machine keeps waiting."""


class Host:
    """A robot host in a thread, and somebody who answers as a simulated arm would; the arm itself is a fake."""

    def __init__(self, folder: Path) -> None:
        self.endpoints = Endpoints(**{name: f"ipc://{folder}/{name}" for name in NAMES})  # type: ignore[arg-type]
        self.arm = FakeRobot(PANDA, monotonic_ns)
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._host), threading.Thread(target=self._answer)]
        for thread in self.threads:
            thread.start()

    def _host(self) -> None:
        run_host(lambda: self.arm, PANDA, PATIENT, self.endpoints, stop=self.ended)

    def _answer(self) -> None:
        with Responder(self.endpoints.sim, SimQuery) as sim:
            while not self.ended.is_set():
                sim.wait(0.01)
                for client, query in sim.poll():
                    sim.reply(client, SimAnswer(t_ns=0, seq=query.seq, ok=True, instruction="lift it"))

    def close(self) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join(10)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    try:
        assert is_simulated(made.endpoints)  # once its host answers, which may compile its kernels first
        yield made
    finally:
        made.close()


def episode(runner: Runner, name: str, said: Verdict = "", *, reset: bool = False) -> EpisodeFigures:
    return runner.episode(
        name,
        instruction="lift it",
        time_limit_s=20.0,
        metadata="{}",
        check=lambda: None,
        verdict=lambda: said,
        reset_protective_stop=reset,
    )


def stop_in_an_episode(host: Host, runner: Runner, stop: str) -> None:
    """Begin an episode; somebody, or the safety layer, ends it."""

    def press() -> Verdict:
        if stop == "e_stop":
            runner.request("e_stop")
        else:
            host.arm.silent = True
        return ""

    first = runner.episode("first", time_limit_s=20.0, metadata="{}", check=lambda: None, verdict=press)
    host.arm.silent = False
    assert stop in first.end
    assert not first.success


@pytest.mark.parametrize(
    ("stop", "simulated", "reset"),
    [
        ("e_stop", False, False),
        ("protective_stop", False, False),
        ("protective_stop", False, True),
        ("protective_stop", True, False),
        ("e_stop", True, True),
    ],
)
def test_after_a_latched_stop_no_episode_begins_until_a_person_has_reset(
    host: Host, stop: str, simulated: bool, reset: bool
) -> None:
    runner = Runner(host.endpoints, (), simulated=simulated)
    try:
        stop_in_an_episode(host, runner, stop)
        reason = "requested" if stop == "e_stop" else "driver"
        for name in ("second", "again"):
            with pytest.raises(
                LatchedError,
                match=rf"{name} does not begin, .* {stop}: .*{reason}.*; look why, then `.* reset",
            ):
                episode(runner, name, reset=reset)
            assert runner.request("status").safety == stop
        assert runner.request("reset").ok
        # What was said of the stop since then is not taken for one of this episode.
        third = runner.episode("third", time_limit_s=0.1, metadata="{}", check=lambda: None)
        assert third.end == "time limit"
    finally:
        runner.close()


def test_an_unattended_run_in_simulation_goes_on_after_a_protective_stop(host: Host) -> None:
    runner = Runner(host.endpoints, ())
    try:
        stop_in_an_episode(host, runner, "protective_stop")
        assert episode(runner, "second", "fail", reset=True).end == "fail"
    finally:
        runner.close()


def test_a_stop_while_the_scene_is_laid_out_stays(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner(host.endpoints, ())
    lay_out = runner._sim_query

    def press(*arguments: object, **options: object) -> SimAnswer:
        runner.request("e_stop")
        return lay_out(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "_sim_query", press)
    try:
        with pytest.raises(RobotError, match="refused to enable the arm in state e_stop"):
            episode(runner, "first", reset=True)
        assert runner.request("status").safety == "e_stop"
    finally:
        runner.close()


def test_without_a_simulator_only_a_person_says_how_it_went(host: Host) -> None:
    runner = Runner(host.endpoints, (), simulated=False)
    try:
        found = [episode(runner, word, word).success for word in ("success", "fail")]  # type: ignore[arg-type]
        limit = runner.episode("limit", time_limit_s=0.1, metadata="{}", check=lambda: None)
    finally:
        runner.close()
    assert found == [True, False]
    assert (limit.success, limit.end, limit.judge) == (None, "time limit", "")


def test_what_the_recorder_cannot_write_stands_in_the_figures(host: Host) -> None:
    figures = EpisodeFigures("e", "lift", "lift it")
    runner = Runner(host.endpoints, (), simulated=False)
    try:
        with Publisher(host.endpoints.recorder, name="recorder") as recorder:
            deadline = time.monotonic() + 10
            while not figures.unrecorded and time.monotonic() < deadline:
                for kind, text in (("recorded", "e is in e.mcap"), ("recorder_error", "No space left")):
                    recorder.send(Event(t_ns=monotonic_ns(), kind=kind, source="recorder", text=text))
                time.sleep(0.02)
                runner._watch_recorder(figures)
    finally:
        runner.close()
    assert figures.unrecorded == "No space left"
    assert set(figures.events) == {"recorder_error: No space left"}
    assert figures.end == ""
