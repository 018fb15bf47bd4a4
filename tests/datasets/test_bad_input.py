"""Whatever command is given a file that is none of ours: one line that says what it is, and the file is left alone."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from contracts.bad_logs import BAD_LOGS
from contracts.episode_bench import motion_log
from reflexarc.cli import main

ONE_LOG = {
    "replay": ["replay", "{bad}"],
    "replay on a robot": ["replay", "{bad}", "--robot", "--out", "{tmp}/out"],
    "view": ["view", "{bad}", "--out", "{tmp}/out"],
    "relabel": ["dataset", "relabel", "{bad}", "--success", "true"],
    "repair": ["dataset", "repair", "{bad}"],
}
WHOLE_SESSION = {
    "info": ["dataset", "info", "{session}"],
    "stats": ["dataset", "stats", "{session}"],
    "lint": ["dataset", "lint", "{session}"],
    "filter": ["dataset", "filter", "{session}", "--out", "{tmp}/out"],
    "split": ["dataset", "split", "{session}", "--out", "{tmp}/out"],
    "merge": ["dataset", "merge", "{session}", "{session}", "--out", "{tmp}/out"],
    "export": ["dataset", "export", "{session}", "--out", "{tmp}/out"],
}


def prints(folder: Path) -> dict[str, str]:
    """What the logs and folders below are, by path; the index of a session may be made anew."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
        if path.name != "index.json"
    }


@pytest.mark.parametrize("bad", BAD_LOGS)
def test_every_command_says_what_is_wrong_with_a_log_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: str
) -> None:
    make, said = BAD_LOGS[bad]
    session = tmp_path / "session"
    motion_log(session / "good.mcap")
    make(session / "bad.mcap")
    before = prints(tmp_path)
    names = {"bad": session / "bad.mcap", "session": session, "tmp": tmp_path}
    for name, arguments in (ONE_LOG | WHOLE_SESSION).items():
        code = main([argument.format(**names) for argument in arguments])
        told = capsys.readouterr()
        shown = " ".join((told.out + told.err).replace("│", " ").split())  # a table breaks lines
        assert code == 1, name
        assert told.err.startswith("reflexarc: "), name
        assert told.err.count("\n") == 1, name
        assert _without_spaces(said) in _without_spaces(shown), (name, shown)
        assert prints(tmp_path) == before, name
    assert main(["dataset", "import", str(session / "bad.mcap"), "--out", str(tmp_path / "out")]) == 1
    assert "neither a LeRobotDataset (a folder with meta/info.json) nor HDF5" in capsys.readouterr().err
    assert prints(tmp_path) == before


def _without_spaces(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["collect", "--task", "lfit", "--episodes", "1", "--out", "out"], "unknown task 'lfit'"),
        (
            ["collect", "--task", "lift", "--seed", "2000", "--out", "out"],
            "reaches into the evaluation seeds",
        ),
        (
            ["collect", "--task", "lift", "--episodes", "0", "--out", "out"],
            "episodes is 0; must be at least 1",
        ),
        (["collect", "--task", "lift", "--share", "2", "--out", "out"], "share is 2; must be within 0..1"),
        (["teleop", "--task", "lfit", "--out", "out"], "unknown task 'lfit'"),
        (["teleop", "--episodes", "0", "--out", "out"], "episodes is 0; must be at least 1"),
        (["view", "nowhere.mcap", "--out", "out/of/many"], "nowhere.mcap"),
        (["view", "nowhere.mcap"], "nowhere.mcap"),
        (["replay", "nowhere.mcap", "--robot", "--speed", "2"], "speed is 2 of the logged one"),
        (
            ["view", "--live", "--spawn", "--connect", "x", "--out", "out"],
            "one of --spawn and --connect at most",
        ),
        (["dataset", "export", "nowhere", "--out", "out"], "nowhere: no such session folder"),
        (["dataset", "import", "nowhere", "--out", "out"], "nowhere: no such file or folder"),
        (["dataset", "repair", "nowhere"], "nowhere: no episode log (.mcap) there"),
    ],
)
def test_a_name_that_is_not_there_leaves_no_folder(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert os.listdir(tmp_path) == []
