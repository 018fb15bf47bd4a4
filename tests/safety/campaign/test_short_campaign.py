"""The campaign in short, in the suite: more than 200,000 commands to all three arms."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.campaign import CHUNK, PRESETS, run_campaign, summary

COMMANDS = 210_000
SEED = 7


@pytest.mark.timeout(900)
def test_no_sender_breaks_a_limit_in_short(tmp_path: Path) -> None:
    assert COMMANDS % (CHUNK * len(PRESETS)) == 0
    found = summary(list(run_campaign(SEED, COMMANDS, tmp_path / "record.jsonl", workers=2)))
    assert found["violations"] == {}
    assert found["failed_stops"] == {}
    assert found["commands"] >= 200_000
    assert found["states_braked_from"] > 1000
    assert len(found["commands_by_robot"]) == len(PRESETS)
    assert found["commands_with_a_tool"] >= COMMANDS // 3
    near = {rule for rule, value in found["worst"].items() if value > -0.01}
    sought = {
        "joint_position",
        "joint_velocity",
        "joint_acceleration",
        "joint_jerk",
        "tcp_speed",
        "tcp_angular_speed",
        "tcp_angular_acceleration",
        "tcp_jerk",
        "workspace",
        "singularity",
        "keep_out",
        "distance",
    }
    assert sought <= near, "senders that never get near a limit prove nothing about it"


def test_a_campaign_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    record.write_text(
        '{"chunk": 0, "robot": "panda", "held": false, "commands": 10000, "stops": 5, "violations": {}, '
        '"failed_stops": {}, "worst": {"workspace": -0.5}, "senders": {"uniform": 10000}}\n'
    )
    outcomes = list(run_campaign(SEED, CHUNK, record, workers=1))
    assert [outcome["stops"] for outcome in outcomes] == [5]
