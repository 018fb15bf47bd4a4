"""The report of an episode: every clamp and stop of the log is in it, with its numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from contracts.episode_bench import METADATA, MS, TICK_NS, state
from reflexarc.audit import audit, draw
from reflexarc.cli import main
from reflexarc.configs.errors import LogError
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.wire.messages import Intervention, SafetyReport, SafetyState

POSE = np.array([0.45, 0, 0.25, 0, 1, 0, 0.0])


def report(
    t_ns: int, now: SafetyState, before: SafetyState, *items: tuple[str, str, float, float], reason: str = ""
) -> SafetyReport:
    """A report with (rule, field, asked, allowed)."""
    found = [Intervention(rule=r, field=f, asked=a, allowed=b, margin=b - a) for r, f, a, b in items]
    return SafetyReport(
        t_ns=t_ns, clock="virtual", seq=0, state=now, previous_state=before, interventions=found,
        reason=reason, speed_scale=0.5,
    )  # fmt: skip


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """One second: limited twice by speed, once by force, then stopped."""
    path = tmp_path / "made.mcap"
    writer = EpisodeWriter(path, METADATA | {"safety_hash": "abc123"}, fsync=False)
    reports = {
        0: report(0, "active", "ready", reason="enable requested"),
        200: report(200 * MS, "active", "active", ("tcp_speed", "tcp", 1.0, 0.7)),
        205: report(
            205 * MS, "active", "active", ("tcp_speed", "tcp", 1.4, 0.7), ("joint_velocity", "joint2", 2, 1)
        ),
        600: report(
            600 * MS, "protective_stop", "active", ("wrist_force", "wrist", 55.0, 20.0), reason="pressed"
        ),
    }
    for tick in range(201):
        now = tick * TICK_NS
        made = state(now, commanded=POSE)
        stopped: dict[str, Any] = {"safety": "protective_stop"} if now >= 600 * MS else {}
        writer.write("/state", msgspec.structs.replace(made, **stopped))
        if now // MS in reports:
            writer.write("/safety", reports[now // MS])
    writer.close({"success": False})
    return path


def test_every_intervention_is_told(log: Path) -> None:
    found = audit(log)
    assert (found.ticks, found.limited, found.seconds) == (201, 3, 1.0)
    assert found.limits == "abc123"
    assert [(round(e.time_s, 6), e.rule, e.asked, e.allowed) for e in found.entries] == [
        (0.2, "tcp_speed", 1.0, 0.7),
        (0.205, "tcp_speed", 1.4, 0.7),
        (0.205, "joint_velocity", 2.0, 1.0),
        (0.6, "wrist_force", 55.0, 20.0),
    ]
    first = found.rules()[0]
    assert (first["rule"], first["ticks"], first["asked"]) == ("tcp_speed", 2, 1.4)
    assert first["worst_s"] == pytest.approx(0.205)
    assert first["rate"] == pytest.approx(2 / 201)
    assert [(round(c.time_s, 6), c.state) for c in found.changes] == [
        (0.0, "active"),
        (0.6, "protective_stop"),
    ]
    assert found.in_state == pytest.approx({"active": 0.595, "protective_stop": 0.405})
    assert found.scale == 0.5
    assert found.figures()["stops"] == 1


def test_the_command_prints_and_writes(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.json"
    arguments = ["safety", "report", str(log), "--json", str(out), "--picture", str(tmp_path / "pictures")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "wrist_force" in printed
    assert "pressed" in printed
    assert json.loads(out.read_text())[0]["rules"][0]["rule"] == "tcp_speed"
    assert (tmp_path / "pictures" / "made.png").read_bytes().startswith(b"\x89PNG")


def test_a_log_without_a_robot_says_so(tmp_path: Path) -> None:
    path = tmp_path / "empty.mcap"
    EpisodeWriter(path, METADATA, fsync=False).close({})
    with pytest.raises(LogError, match="holds no state of a robot host"):
        audit(path)


def test_a_quiet_episode_can_be_drawn(tmp_path: Path) -> None:
    path = tmp_path / "quiet.mcap"
    writer = EpisodeWriter(path, METADATA, fsync=False)
    writer.write("/state", state(0, commanded=POSE))
    writer.close({})
    draw(audit(path), tmp_path / "quiet.png")
    assert (tmp_path / "quiet.png").stat().st_size > 1000
