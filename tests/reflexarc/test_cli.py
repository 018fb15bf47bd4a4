"""The command line on bad input: one clear line, a non-zero exit, nothing half-written."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from reflexarc.cli import COMMANDS, main
from reflexarc.datasets.writer import EpisodeWriter


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("eval --policy expert --task lfit", "unknown task 'lfit'; known: button, drawer, lift, place"),
        ("eval --policy expert --suite kitchen", "unknown suite 'kitchen'; known: tabletop"),
        (
            "eval --policy nobody",
            "unknown policy 'nobody'; known: reflexarc-tiny; or name a checkpoint folder",
        ),
        ("demo --policy nobody", "unknown policy 'nobody'"),
        ("eval --robot pnda --policy expert", "unknown robots preset 'pnda'; known: fr3, panda, ur5e"),
        (
            "eval --safety none --policy expert",
            "unknown safety preset 'none'; known: fr3, panda, panda-wide, ur5e",
        ),
        ("eval --policy expert --set safety.tcp_sped=1", "unknown key 'tcp_sped'"),
        (
            "eval --policy expert --set safty.tcp_speed=1",
            "unknown section 'safty'; known: controller, recording, robot, safety",
        ),
        ("eval --policy expert --set safety.velocity_scale=2", "beyond the robot's published limit"),
        ("eval --policy expert --task reach --episodes 1 --latency fast", "latency 'fast' is neither"),
        ("collect --task lift --seed 2000", "reaches into the evaluation seeds"),
        ("sim view --task stak", "unknown task 'stak'"),
        ("replay nowhere.mcap", "nowhere.mcap"),
        ("config show kitchens x", "unknown kind of configuration 'kitchens'"),
        ("eval --config nowhere.yaml", "cannot read the config file nowhere.yaml"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: str,
    line: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 1
    said = capsys.readouterr().err
    assert said.startswith("reflexarc: ")
    assert said.count("\n") == 1
    assert line in said
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_occupied_port_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["robot", "--task", "reach", "--port", str(port)]) == 1
    assert f"port {port} is occupied" in capsys.readouterr().err


def test_a_log_that_was_not_simulated_is_refused_by_replay(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "real.mcap"
    EpisodeWriter(path, {"task": "none"}, fsync=False).close({"success": False})
    assert main(["replay", str(path)]) == 1
    assert "it was not recorded from the simulator" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"Example: reflexarc {command}" in capsys.readouterr().out


def test_options_come_from_a_file_and_the_line_wins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "options.yaml").write_text("policy: expert\ntask: [reach]\nepisodes: 2\nworkers: 1\n")
    assert main(["eval", "--config", str(tmp_path / "options.yaml"), "--episodes", "1"]) == 0
    said = capsys.readouterr().out
    assert "reach" in said
    assert "100%" in said
