"""The configurations that a run is made of, loaded once and handed around together."""

from __future__ import annotations

import dataclasses

from pydantic import BaseModel

from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.load import load_controller, load_recording, load_robot, load_safety
from reflexarc.configs.recording import RecordingConfig
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.record import episode_metadata


@dataclasses.dataclass(frozen=True, slots=True)
class Setup:
    """Robot, safety limits and controller of a run, and how its pictures are kept."""

    robot: RobotConfig
    safety: SafetyConfig
    controller: ControllerConfig
    recording: RecordingConfig = dataclasses.field(default_factory=RecordingConfig)

    def metadata(self, *, task: str, seed: int, policy: str, clock: str, **more: BaseModel) -> str:
        """The metadata of one episode run with this set-up and `more` configurations, as JSON."""
        configs = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)} | more
        return episode_metadata(
            task=task,
            seed=seed,
            policy=policy,
            clock=clock,
            robot=self.robot,
            safety=self.safety,
            configs=configs,
        )


def load_setup(
    robot: str = "panda",
    safety: str = "panda",
    controller: str = "default",
    overrides: tuple[str, ...] = (),
) -> Setup:
    """Load presets or files by name. Overrides are `robot.x=…`, `safety.x=…`, `controller.x=…`, `recording.x=…`.

    Raises ConfigError naming the key and the valid alternatives.
    """
    parts = split_overrides(overrides, ("robot", "safety", "controller", "recording"))
    return Setup(
        robot=load_robot(robot, parts["robot"]),
        safety=load_safety(safety, parts["safety"]),
        controller=load_controller(controller, parts["controller"]),
        recording=load_recording("default", parts["recording"]),
    )


def split_overrides(overrides: tuple[str, ...], sections: tuple[str, ...]) -> dict[str, list[str]]:
    """Sort `section.key=value` by section; raises ConfigError for an unknown section."""
    from reflexarc.configs.errors import ConfigError, unknown

    parts: dict[str, list[str]] = {section: [] for section in sections}
    for override in overrides:
        section, dot, rest = override.partition(".")
        if not dot or section not in parts:
            raise ConfigError(f"--set {override!r}: {unknown('section', section, sections)}")
        parts[section].append(rest)
    return parts
