"""The lint: every fault planted into a real log is found by its own rule and by no other; good logs have no finding."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rerun.chunk import RrdReader

from contracts.demonstrations import record_demonstrations
from contracts.planted_faults import FAULTS, Fault, Item, each, idle, moved, rewrite, until, wandering
from reflexarc.cli import main
from reflexarc.configs.errors import LogError
from reflexarc.datasets.lint.findings import RULES, Finding
from reflexarc.datasets.lint.measures import drift, motion_lag, runs
from reflexarc.datasets.lint.rules import check_episode
from reflexarc.datasets.lint.run import lint_session
from reflexarc.datasets.lint.signals import read_signals
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.wire.messages import State

EPISODES = 10


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clean demonstrations of one task and one of another."""
    folder = record_demonstrations(tmp_path_factory.mktemp("good"), ("lift",), EPISODES)
    return record_demonstrations(folder, ("push",), 1)


@pytest.fixture(scope="module")
def log(good: Path) -> Path:
    return sorted((good / "lift").glob("*.mcap"))[0]


@pytest.fixture
def session(good: Path, tmp_path: Path) -> Path:
    """A copy of the good session, to spoil."""
    return Path(shutil.copytree(good, tmp_path / "session"))


def found(path: Path) -> list[Finding]:
    return check_episode(read_signals(EpisodeReader(path)), path.name)


def test_good_episodes_have_no_finding(good: Path) -> None:
    report = lint_session(good)
    assert len(report.entries) == EPISODES + 1
    assert report.findings == ()
    assert report.not_compared == ("push",)  # one episode is no distribution, and that is said


def test_a_log_of_rows_as_imports_make_it_has_no_finding(log: Path, tmp_path: Path) -> None:
    """States at 10 Hz with each picture, and no setpoint, chunk or configuration."""

    def rows(items: list[Item]) -> list[Item]:
        kept = [item for item in items if item[0] not in ("/setpoint", "/chunk", "/sim/steps")]
        return [item for item in kept if item[0] != "/state" or item[1].t_state_ns % 100_000_000 == 0]

    assert found(rewrite(log, tmp_path / "rows.mcap", rows, configs={})) == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found_by_its_own_rule(fault: Fault, log: Path, tmp_path: Path) -> None:
    findings = found(rewrite(log, tmp_path / "planted.mcap", fault.change))
    assert {item.rule for item in findings} == {fault.rule}, [item.text for item in findings]
    if fault.at_s is not None:
        assert findings[0].time_s == pytest.approx(fault.at_s, abs=0.05)
    assert findings[0].severity == RULES[fault.rule].severity


def test_every_rule_on_one_episode_has_a_planted_fault() -> None:
    between = {"unreadable", "cut_short", "left_out", "duplicate", "outlier"}
    assert {fault.rule for fault in FAULTS} == set(RULES) - between


def rules_of(folder: Path) -> dict[str, set[str]]:
    rules: dict[str, set[str]] = {}
    for item in lint_session(folder).findings:
        rules.setdefault(item.episode, set()).add(item.rule)
    return rules


def test_a_copy_is_found_whole_or_shortened_and_whatever_it_is_called(session: Path) -> None:
    logs = sorted((session / "lift").glob("*.mcap"))
    shutil.copy(logs[0], session / "lift" / "z.mcap")
    rewrite(logs[1], session / "push" / "z.mcap", until(2_000_000_000), task="push")

    def later(items: list[Item]) -> list[Item]:
        return [(topic, moved(message, 70_000_000, 0), at + 70_000_000) for topic, message, at in items]

    rewrite(logs[2], session / "lift" / "zz.mcap", later)
    assert rules_of(session) == {
        name: {"duplicate"} for name in ("lift/z.mcap", "lift/zz.mcap", "push/z.mcap")
    }


def test_an_episode_that_is_unlike_the_others_is_found(session: Path) -> None:
    logs = sorted((session / "lift").glob("*.mcap"))
    rewrite(logs[0], session / "lift" / "astray.mcap", each(State, wandering))
    logs[0].unlink()
    (push,) = (session / "push").glob("*.mcap")
    rewrite(push, session / "lift" / "mislabelled.mcap", list, task="lift")
    push.unlink()
    rules = rules_of(session)
    assert set(rules) == {"lift/astray.mcap", "lift/mislabelled.mcap"}
    assert rules["lift/mislabelled.mcap"] == {"outlier"}
    assert "outlier" in rules["lift/astray.mcap"]


def test_what_cannot_be_read_or_was_cut_is_a_finding(session: Path) -> None:
    logs = sorted((session / "lift").glob("*.mcap"))
    (session / "rubbish.mcap").write_bytes(b"rubbish")
    logs[0].write_bytes(logs[0].read_bytes()[: logs[0].stat().st_size * 2 // 3])
    rules = rules_of(session)
    assert rules["rubbish.mcap"] == {"unreadable"}
    assert "cut_short" in rules[f"lift/{logs[0].name}"]


@pytest.mark.parametrize("key", ["dropped", "refused", "never_arrived"])
def test_what_the_recorder_left_out_is_a_finding(key: str, session: Path) -> None:
    (log,) = (session / "push").glob("*.mcap")
    reader = EpisodeReader(log)
    garbage = {"/state": "many", "/chunk": None, "/setpoint": -1, "/safety": 0}
    outcome = (reader.outcome or {}) | {key: {"/camera/front": 3, "/event": 2} | garbage}
    out = rewrite(log, session / "push" / "again.mcap", list, outcome=outcome)
    log.unlink()
    (told,) = lint_session(session).findings
    assert (told.rule, told.episode, told.value) == ("left_out", f"push/{out.name}", 5.0)
    assert "5 messages were left out" in told.text
    assert "(/camera/front, /event)" in told.text


def test_the_command_fails_on_errors_and_writes_json_and_html(
    session: Path, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_name = {fault.name: fault for fault in FAULTS}
    warning = rewrite(log, session / "lift" / "idle.mcap", idle(1_100_000_000, head=True))
    (session / "lift" / log.name).unlink()
    page, figures = tmp_path / "report.html", tmp_path / "report.json"
    arguments = ["dataset", "lint", str(session), "--html", str(page), "--json", str(figures)]
    assert main(arguments) == 0  # a warning alone does not fail
    told = json.loads(figures.read_text())
    assert (told["errors"], told["warnings"], told["episodes"]) == (0, 1, EPISODES + 1)

    warning.unlink()
    rewrite(log, session / "lift" / "black.mcap", by_name["a camera is black"].change)
    before = {path: path.read_bytes() for path in session.rglob("*.mcap")}
    capsys.readouterr()
    assert main(arguments) == 1
    assert "1 errors in 1 of 11 episodes" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in session.rglob("*.mcap")} == before
    told = json.loads(figures.read_text())
    assert told["episodes_by_rule"] == {rule: int(rule == "blank_camera") for rule in RULES}
    (item,) = told["findings"]
    assert (item["episode"], item["rule"], item["signal"]) == ("lift/black.mcap", "blank_camera", "front")
    assert (item["time_s"], item["value"], item["limit"]) == (pytest.approx(1.2), 0.0, 4.0)

    text = page.read_text()
    assert item["look"] == f"reflexarc view {session / 'lift' / 'black.mcap'} --at 1.20 --spawn"
    (link,) = re.findall(r'<a href="([^"#]+)" type="application/x-rerun">1\.20 s in Rerun', text)
    assert link == "report-rerun/lift/black/at-1.20.rrd"
    times = []
    for chunk in RrdReader(str(tmp_path / link)).stream():
        if str(chunk.entity_path) == "/camera/front":
            batch = chunk.to_record_batch()
            times += batch.column(batch.schema.names.index("time")).to_numpy().astype(np.int64).tolist()
    assert min(abs(time * 1e-9 - item["time_s"]) for time in times) < 1e-6  # the very frame is in it
    assert max(abs(time * 1e-9 - item["time_s"]) for time in times) < 1.6
    assert main([*arguments, "--no-recordings"]) == 1
    assert 'type="application/x-rerun"' not in page.read_text()
    assert not re.search(r"<script|https?://|src=\"(?!data:)|@import|url\(", text)  # nothing from elsewhere
    assert text.count('<img alt="') == 2  # one picture a camera
    assert text.count("<svg") == 1
    assert f"reflexarc view {session / 'lift' / 'black.mcap'} --at 1.20" in text
    for rule, row in RULES.items():
        assert rule in text
        assert row.severity in ("error", "warning")


def test_bad_input_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LogError, match="no such session folder"):
        lint_session(tmp_path / "none")
    assert main(["dataset", "lint", str(tmp_path), "--html", str(tmp_path / "r.html")]) == 1
    assert "no episode log (.mcap) there" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_steady_motion_tells_no_lag() -> None:
    """It fits as well at any."""
    t = np.arange(0.0, 4.0, 0.1)
    joints = t[:, None] * np.array([[0.1, -0.2]])
    assert motion_lag(t, joints, t, joints) == (0.0, pytest.approx(1.0))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(-30, 30))
def test_a_lag_is_measured_whatever_the_motion(seed: int, lag: int) -> None:
    random = np.random.default_rng(seed)
    t = np.arange(0.0, 4.0, 0.005)
    rates = random.uniform(0.5, 3.0, (4, 3))
    phases = random.uniform(0, 6, (4, 3))

    def joints(at: np.ndarray) -> np.ndarray:
        return np.asarray(np.sin(at[:, None, None] * rates + phases).sum(axis=1))

    measured, alike = motion_lag(t, joints(t), t, joints(t - 0.01 * lag))
    assert measured == pytest.approx(0.01 * lag, abs=0.011)
    assert alike > 0.95


@given(st.lists(st.booleans(), max_size=30))
def test_runs_cover_what_is_true_and_nothing_else(values: list[bool]) -> None:
    covered = np.zeros(len(values), dtype=bool)
    spans = runs(np.array(values, dtype=bool))
    for first, last in spans:
        covered[first : last + 1] = True
    assert covered.tolist() == values
    assert all(later[0] > earlier[1] + 1 for earlier, later in itertools.pairwise(spans))


def test_a_drift_is_measured_through_jitter() -> None:
    t = np.arange(0.0, 20.0, 0.1)
    late = np.random.default_rng(0).exponential(0.003, len(t))
    late[::17] += 0.1  # a stall now and then is no drift
    slope, apart = drift(t, 0.01 + 0.002 * t + late)
    assert slope == pytest.approx(0.002, abs=2e-4)
    assert apart == pytest.approx(0.04, rel=0.1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_clean_episodes_of_all_tasks_give_no_alarm(tmp_path: Path) -> None:
    """203 episodes, 29 of each of the seven tasks; about ten minutes of one core."""
    folder = tmp_path / "clean"
    arguments = ["collect", "--episodes", "29", "--seed", "21", "--share", "0", "--out", str(folder)]
    assert main([*arguments, "--workers", "2"]) == 0
    report = lint_session(folder)
    print(f"{len(report.entries)} episodes: {report.errors} errors, {report.warnings} warnings")
    assert len(report.entries) >= 200
    assert report.findings == ()
    assert report.not_compared == ()
