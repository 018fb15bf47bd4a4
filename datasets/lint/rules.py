"""All rules on one episode: pure functions from its signals to findings. Limits and reasons: `findings.RULES`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from reflexarc.datasets.lint import motion, pictures
from reflexarc.datasets.lint.findings import Finding
from reflexarc.datasets.lint.signals import EpisodeSignals

EPISODE_RULES: tuple[Callable[[EpisodeSignals, str], Iterator[Finding]], ...] = (
    pictures.dropped_frames,
    pictures.late_frames,
    pictures.camera_silent,
    pictures.clock_skew,
    pictures.picture_lag,
    pictures.frozen_camera,
    pictures.blank_camera,
    motion.state_gap,
    motion.action_lag,
    motion.saturated_action,
    motion.jumping_action,
    motion.gripper_polarity,
    motion.idle_ends,
    motion.too_short,
)


def check_episode(signals: EpisodeSignals, episode: str) -> list[Finding]:
    """All findings of the rules on one episode, by time."""
    found = [item for rule in EPISODE_RULES for item in rule(signals, episode)]
    return sorted(found, key=lambda item: (item.time_s, item.rule))
