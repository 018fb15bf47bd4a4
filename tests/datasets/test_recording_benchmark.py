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


def write(path: Path, left_out: tuple[str, int] | None = None, dropped: dict[str, int] | None = None) -> None:
    """A second of everything, without one message."""
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
                if left_out != (topic, tick):
                    writer.write(topic, message)
        writer.close({"success": True, "dropped": dropped or {}})


def test_a_whole_log_lacks_nothing(recording: ModuleType, tmp_path: Path) -> None:
    write(tmp_path / "0.mcap")
    write(tmp_path / "1.mcap")
    found = recording.logged(tmp_path)
    assert found["lost"] == 0
    assert found["faults"] == []
    assert found["rate_hz"]["/setpoint"] == pytest.approx(200, rel=0.01)
    assert found["rate_hz"]["/camera/wrist"] == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize("topic", ["/state", "/setpoint", "/camera/wrist"])
def test_one_message_that_is_not_there_is_found(recording: ModuleType, tmp_path: Path, topic: str) -> None:
    write(tmp_path / "0.mcap", left_out=(topic, 100))
    found = recording.logged(tmp_path)
    assert found["missing"][topic] == 1
    assert found["lost"] == 1


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


def test_drops_that_the_recorder_counted_are_told(recording: ModuleType, tmp_path: Path) -> None:
    write(tmp_path / "0.mcap", dropped={"/camera/front": 3})
    assert recording.logged(tmp_path)["dropped"] == 3


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
