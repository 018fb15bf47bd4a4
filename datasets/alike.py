"""Whether episodes can be one data set: the same robot, action space, rates and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reflexarc.configs.errors import LogError
from reflexarc.datasets.summary import EpisodeSummary

RATE_TOLERANCE = 0.2
"""Mean camera rates this share apart are one rate: cameras in real time are never on the dot."""


def check_alike(episodes: Sequence[EpisodeSummary]) -> None:
    """Raise LogError naming the first thing in which two episodes differ so that they are not one data set.

    What a log does not say (one that was imported has no configuration) contradicts nothing.
    """
    first: dict[str, tuple[str | float, Path]] = {}
    for each in episodes:
        for field, value in _traits(each).items():
            known, log = first.setdefault(field, (value, each.log))
            if field.endswith("rate (Hz)") and isinstance(value, float) and isinstance(known, float):
                differs = abs(value - known) > RATE_TOLERANCE * max(value, known)
            else:
                differs = value != known
            if differs:
                raise LogError(
                    f"{each.log}: {field} is {_shown(value)}, in {log} it is {_shown(known)}; "
                    "such episodes are not one data set"
                )


def _traits(episode: EpisodeSummary) -> dict[str, str | float]:
    """What episodes of one data set have in common, by its name in words; without what the log does not say."""
    found: dict[str, str | float | None] = {
        "robot": episode.robot,
        "number of joints": episode.joints,
        "host rate tick_hz": episode.tick_hz,
        "action space": episode.action_space,
        "action step_s": None if episode.step_s is None else round(episode.step_s, 9),
    }
    for name, camera in episode.cameras.items():
        found[f"camera {name} size"] = f"{camera.width}x{camera.height}"
        found[f"camera {name} rate (Hz)"] = camera.rate_hz or None
    return {name: value for name, value in found.items() if value is not None and value != ""}


def _shown(value: str | float) -> str:
    return repr(value) if isinstance(value, str) else f"{value:.6g}"
