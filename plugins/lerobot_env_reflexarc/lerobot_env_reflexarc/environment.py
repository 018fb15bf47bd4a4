"""One task with the names that lerobot expects: `pixels` by camera, `agent_pos`, `task_description`, `is_success`.

The action is Reflexarc's canonical one, `[dx dy dz drx dry drz gripper]`, m and rad a step in the base frame, gripper
0 closed and 1 open; each step passes the same controller and safety as on a robot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from numpy.typing import NDArray

from reflexarc.sim.envs import STEP_S, TabletopEnv
from reflexarc.sim.tasks import TASKS, get_task
from reflexarc.sim.world import CAMERAS
from reflexarc.vla.adapters.flat_state import flat_size, flatten

PANDA_JOINTS = 7


class LeRobotTabletop(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """See the header. Takes the arguments of `TabletopEnv`."""

    metadata = TabletopEnv.metadata

    def __init__(self, task: str, image_size: int = 96, render_mode: str | None = "rgb_array") -> None:
        self.inner = TabletopEnv(task, image_size=(image_size, image_size), render_mode=render_mode)
        self.task, self.render_mode = task, render_mode
        self.action_space = self.inner.action_space
        pixels = {name: spaces.Box(0, 255, (image_size, image_size, 3), np.uint8) for name in CAMERAS}
        state = spaces.Box(-np.inf, np.inf, (flat_size(PANDA_JOINTS),), np.float32)
        self.observation_space = spaces.Dict({"pixels": spaces.Dict(pixels), "agent_pos": state})

    @property
    def task_description(self) -> str:
        """The instruction of the present episode."""
        return self.inner.world.instruction

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A layout drawn by `seed`."""
        super().reset(seed=seed)
        sight, info = self.inner.reset(seed=seed, options=options)
        return self._see(sight), self._info(info)

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One policy step."""
        sight, reward, terminated, truncated, info = self.inner.step(action)
        return self._see(sight), reward, terminated, truncated, self._info(info)

    def render(self) -> NDArray[np.uint8] | None:
        """The front camera's picture."""
        return self.inner.render()

    def close(self) -> None:
        """Release the renderer."""
        self.inner.close()

    def _see(self, sight: dict[str, Any]) -> dict[str, Any]:
        return {"pixels": {name: sight[name] for name in CAMERAS}, "agent_pos": flatten(self.inner.state)}

    def _info(self, info: dict[str, Any]) -> dict[str, Any]:
        return info | {"is_success": info["success"]}


@EnvConfig.register_subclass("reflexarc")
@dataclass
class ReflexarcEnvConfig(EnvConfig):
    """task: one of the suite's. image_size: pixels of a side; reflexarc-tiny needs 96."""

    task: str | None = "lift"
    fps: int = round(1 / STEP_S)
    image_size: int = 96
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        get_task(str(self.task))
        picture = PolicyFeature(type=FeatureType.VISUAL, shape=(self.image_size, self.image_size, 3))
        self.features = {
            ACTION: PolicyFeature(type=FeatureType.ACTION, shape=(7,)),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(flat_size(PANDA_JOINTS),)),
            **{f"pixels/{name}": picture for name in CAMERAS},
        }
        pictures = {f"pixels/{name}": f"{OBS_IMAGES}.{name}" for name in CAMERAS}
        self.features_map = {ACTION: ACTION, "agent_pos": OBS_STATE, **pictures}

    @property
    def package_name(self) -> str:
        """What registers the environments."""
        return "lerobot_env_reflexarc"

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Arguments of the environment."""
        return {"image_size": self.image_size}


for _task in TASKS.values():
    gymnasium.register(
        id=f"lerobot_env_reflexarc/{_task.name}",
        entry_point="lerobot_env_reflexarc.environment:LeRobotTabletop",
        kwargs={"task": _task.name},
        max_episode_steps=round(_task.time_limit_s / STEP_S),
    )
