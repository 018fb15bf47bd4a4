"""Reflexarc's policies as a policy of lerobot: `--policy.type=reflexarc --policy.checkpoint=reflexarc-tiny`.

Importing this registers the configuration; lerobot finds model and processors by the names of the other modules.
"""

from lerobot_policy_reflexarc.configuration_reflexarc import ReflexarcConfig

__all__ = ["ReflexarcConfig"]
