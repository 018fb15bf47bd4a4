"""What benchmarks/recording.py says of a log: a message that is not there is found, however few it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest

from contracts.episode_bench import MS, every_message, picture, state
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.writer import EpisodeWriter

pytest.importorskip("lerobot")
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
HERE = np.array([0.45, 0.0, 0.25, 0.0, 1.0, 0.0, 0.0])
SETPOINT = next(message for topic, message in every_message() if topic == "/setpoint")


@pytest.fixture(scope="module")
def recording() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import recording

        yield recording
    finally:
        sys.path.remove(str(BENCHMARKS))


def write(path: Path, left_out: tuple[str, range] = ("", range(0)), **outcome: object) -> None:
    """A second of everything, without some ticks of one topic."""
    with EpisodeWriter(path, {"task": "lift"}, fsync=False) as writer:
        for tick in range(200):
            messages = {
                "/state": state(tick * 5 * MS, commanded=HERE, seq=tick),
                "/setpoint": msgspec.structs.replace(SETPOINT, t_ns=tick * 5 * MS, seq=tick),
            }
            if tick % 10 == 0:
                for camera in ("front", "wrist"):
                    messages[f"/camera/{camera}"] = picture(tick * 5 * MS, camera, tick // 10)
            for topic, message in messages.items():
                if topic != left_out[0] or tick not in left_out[1]:
                    writer.write(topic, message)
        writer.close({"success": True, "dropped": {}, **outcome})


def test_a_whole_log_lacks_nothing(recording: ModuleType, tmp_path: Path) -> None:
    write(tmp_path / "0.mcap")
    write(tmp_path / "1.mcap")
    found = recording.logged(tmp_path)
    assert found["lost"] == 0
    assert found["faults"] == []
    assert found["rate_hz"]["/setpoint"] == pytest.approx(200, rel=0.01)
    assert found["rate_hz"]["/camera/wrist"] == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize("topic", ["/state", "/setpoint", "/camera/wrist"])
@pytest.mark.parametrize(("first", "ticks"), [(100, 10), (0, 20), (180, 20), (0, 200)])
def test_messages_that_are_not_there_are_found_wherever(
    recording: ModuleType, tmp_path: Path, topic: str, first: int, ticks: int
) -> None:
    write(tmp_path / "0.mcap", left_out=(topic, range(first, first + ticks)))
    found = recording.logged(tmp_path)
    lacking = ticks // 10 if topic == "/camera/wrist" else ticks
    assert found["missing"][topic] == found["lost"] == (1 if ticks == 200 else lacking)
    assert [name for name, count in found["missing"].items() if count] == [topic]


def test_a_log_without_any_of_them_is_no_whole_log(recording: ModuleType, tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "0.mcap", {"task": "lift"}, fsync=False) as writer:
        writer.write("/state", state(0, commanded=HERE))
        writer.close({"success": True})
    assert recording.logged(tmp_path)["missing"] == {
        "/state": 0,
        "/setpoint": 1,
        "/camera/front": 1,
        "/camera/wrist": 1,
    }


def test_a_log_that_was_not_ended_is_told(recording: ModuleType, tmp_path: Path) -> None:
    write(tmp_path / "0.mcap", error="the disk is full")
    with EpisodeWriter(tmp_path / "1.mcap", {"task": "lift"}, fsync=False) as writer:
        writer.write("/state", state(0, commanded=HERE))
        writer.sync()
        writer.abandon()
    assert recording.logged(tmp_path)["faults"] == [
        "0.mcap: the disk is full",
        "1.mcap: the recorder has not closed it",
    ]


def test_what_the_recorder_says_itself_is_told_and_counted_once(
    recording: ModuleType, tmp_path: Path
) -> None:
    left_out = ("/camera/front", range(50, 70))
    write(
        tmp_path / "0.mcap",
        left_out,
        dropped={"/camera/front": 1},
        never_arrived={"/camera/front": 1, "/teleop": 4},
    )
    found = recording.logged(tmp_path)
    assert found["dropped"] == 1
    assert found["missing"]["/camera/front"] == 2
    assert found["lost"] == 2 + 4


def test_late_ticks_are_judged_where_there_were_none_without(recording: ModuleType) -> None:
    def runs(late: int) -> list[dict[str, dict[str, dict[str, int]]]]:
        return [{"loops": {"controller": {"count": 4000, "late": each}}} for each in (late, 0)]

    assert recording.too_late(runs(0), runs(6)) == ""
    assert "7 late ticks of the controller, none without" in recording.too_late(runs(0), runs(7))
    assert recording.too_late(runs(10), runs(12)) == ""
    assert "1.30 times, limit 1.2" in recording.too_late(runs(10), runs(13))


def test_our_path_writes_every_row(recording: ModuleType, tmp_path: Path) -> None:
    taken = {camera: np.zeros((2, 16, 16, 3), np.uint8) for camera in recording.CAMERAS}
    done = recording.run_path("ours", taken, 9, 30.0, tmp_path, paced=False)
    assert EpisodeReader(tmp_path / "episodes" / "e.mcap").topics == {
        "/camera/front": 9,
        "/camera/wrist": 9,
        "/state": 9,
        "/setpoint": 9,
    }
    assert (done.rows, done.pictures, done.lost) == (9, 18, 0)
