"""Reflexarc's simulated tasks as an environment of lerobot: `--env.type=reflexarc --env.task=lift`.

Importing this registers the configuration with lerobot and `lerobot_env_reflexarc/<task>` with Gymnasium.
"""

from lerobot_env_reflexarc.environment import LeRobotTabletop, ReflexarcEnvConfig

__all__ = ["LeRobotTabletop", "ReflexarcEnvConfig"]
