"""Cameras that stall are named, and a policy is not asked about what they keep sending."""

from __future__ import annotations

import numpy as np

from contracts.episode_bench import picture
from reflexarc.configs.watch import CameraWatchConfig
from reflexarc.controllers.cameras import CameraWatch

STEP_NS = 100_000_000
HOME = np.zeros(7)
CONFIG = CameraWatchConfig()
MOVED_RAD, SILENT_NS = CONFIG.moved_rad, round(CONFIG.silence_s * 1e9)


def turned(angle: float) -> np.ndarray:
    """The arm with one joint turned."""
    return np.where(np.arange(7) == 2, angle, 0.0)


def test_new_pictures_are_taken_and_nothing_is_said() -> None:
    watch = CameraWatch(CONFIG)
    for k in range(20):
        assert watch.take(picture(k * STEP_NS, value=k), turned(0.1 * k), k * STEP_NS)
    assert watch.events(20 * STEP_NS) == []


def test_the_same_picture_of_an_arm_that_moves_is_refused_and_told_once() -> None:
    watch = CameraWatch(CONFIG)
    taken = [watch.take(picture(k * STEP_NS, value=1), turned(0.03 * k), k * STEP_NS) for k in range(10)]
    assert taken == [0.03 * k <= MOVED_RAD for k in range(10)]
    told = watch.events(10 * STEP_NS)
    assert [kind for kind, _ in told] == ["camera_stalled"]
    assert "camera front: it sends the same picture, though a joint has moved by 0.12 rad" in told[0][1]
    assert watch.take(picture(11 * STEP_NS, value=2), turned(0.5), 11 * STEP_NS)
    assert [kind for kind, _ in watch.events(11 * STEP_NS)] == ["camera_returned"]


def test_the_same_picture_of_an_arm_at_rest_says_nothing() -> None:
    watch = CameraWatch(CONFIG)
    assert all(watch.take(picture(k * STEP_NS, value=1), HOME, k * STEP_NS) for k in range(50))
    assert watch.events(50 * STEP_NS) == []


def test_one_camera_that_falls_silent_is_named() -> None:
    watch = CameraWatch(CONFIG)
    for k in range(5):
        watch.take(picture(k * STEP_NS, "front", k), HOME, k * STEP_NS)
    watch.take(picture(0, "wrist", 1), HOME, 0)
    told = watch.events(SILENT_NS + 1)
    assert [text for _, text in told] == ["camera wrist: it has sent no picture for 1.0 s"]
    assert watch.events(SILENT_NS + 2) == []
    watch.take(picture(SILENT_NS + 3, "wrist", 2), HOME, SILENT_NS + 3)
    assert [kind for kind, _ in watch.events(SILENT_NS + 4)] == ["camera_returned"]


def test_what_counts_as_a_stall_is_configured() -> None:
    watch = CameraWatch(CameraWatchConfig(silence_s=0.2, moved_rad=0.5))
    assert all(watch.take(picture(k * STEP_NS, value=1), turned(0.1 * k), k * STEP_NS) for k in range(6))
    assert not watch.take(picture(6 * STEP_NS, value=1), turned(0.6), 6 * STEP_NS)
    watch.take(picture(7 * STEP_NS, value=2), HOME, 7 * STEP_NS)
    watch.events(7 * STEP_NS)
    assert watch.events(9 * STEP_NS) == []
    assert [kind for kind, _ in watch.events(9 * STEP_NS + 1)] == ["camera_stalled"]
