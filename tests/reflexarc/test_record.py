"""What stands in an episode's metadata: configs, versions, revision, seed, calibration."""

from __future__ import annotations

import json
import re
from pathlib import Path

import mujoco
import pytest
import yaml

from reflexarc import __version__
from reflexarc.configs.errors import ConfigError
from reflexarc.configs.load import load_robot, resolve_asset
from reflexarc.setup import Setup, load_setup

WRIST = {
    "width": 640,
    "height": 480,
    "fx": 601.3,
    "fy": 602.1,
    "cx": 318.9,
    "cy": 241.7,
    "distortion": [0.1, -0.2, 0.0, 0.001, 0.05],
    "mount": "tcp",
    "position": [0.075, 0.0, -0.08],
    "quaternion": [0.0, 0.7071, 0.7071, 0.0],
    "source": "checkerboard of 9x6, 30 pictures, 2026-03-02",
}


def metadata(setup: Setup) -> dict[str, object]:
    found = json.loads(setup.metadata(task="lift", seed=7, policy="expert", clock="virtual"))
    assert isinstance(found, dict)
    return found


def calibrated(folder: Path, **changed: object) -> str:
    """A file of the Panda with a camera that was calibrated."""
    robot = load_robot("panda").model_dump(mode="json") | {"cameras": {"wrist": WRIST | changed}}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(robot))
    return str(path)


def test_an_episode_says_what_it_was_made_with(tmp_path: Path) -> None:
    setup = load_setup(
        robot=calibrated(tmp_path), overrides=("recording.images=jpeg", "recording.jpeg_quality=80")
    )
    found = metadata(setup)
    assert (found["task"], found["seed"], found["policy"]) == ("lift", 7, "expert")
    configs, versions = found["configs"], found["versions"]
    assert isinstance(configs, dict)
    assert isinstance(versions, dict)
    assert set(configs) == {"robot", "safety", "controller", "recording"}
    assert configs["robot"]["cameras"] == {"wrist": WRIST}
    assert configs["recording"] == {"name": "default", "images": "jpeg", "jpeg_quality": 80}
    assert versions["reflexarc"] == __version__
    assert versions["mujoco"] == mujoco.__version__
    assert re.fullmatch(r"[0-9a-f]{40}(\+dirty)?|unknown", str(found["git_revision"]))
    assert re.fullmatch(r"[0-9a-f]{64}", str(found["safety_hash"]))
    assert resolve_asset(configs["robot"]["mjcf"]).is_file()


@pytest.mark.parametrize(
    "change",
    [
        "robot.joints.0.velocity=1.0",
        "robot.joints.0.effort=20.0",
        "robot.payload.mass=0.5",
        "safety.tcp_speed=0.3",
    ],
)
def test_the_hash_of_the_limits_changes_with_each_of_them(change: str) -> None:
    usual = metadata(load_setup())["safety_hash"]
    assert metadata(load_setup(overrides=(change,)))["safety_hash"] != usual


def test_the_hash_of_the_limits_does_not_change_with_what_is_none(tmp_path: Path) -> None:
    calibration = load_setup(robot=calibrated(tmp_path), overrides=("controller.execute_steps=1",))
    assert metadata(calibration)["safety_hash"] == metadata(load_setup())["safety_hash"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"quaternion": [0, 0, 0, 0]}, "quaternion has length 0; it must be 1"),
        ({"fx": -1.0}, "cameras.wrist.fx"),
        ({"mount": "ceiling"}, "'base' or 'tcp'"),
        ({"source": ""}, "cameras.wrist.source"),
    ],
)
def test_a_calibration_that_is_none_is_refused(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_robot(calibrated(tmp_path, **changed))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
