"""What a policy would have emitted for an action becomes that action again, in every convention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reflexarc.configs.foreign import ActionConvention
from reflexarc.vla.adapters.convention import to_canonical
from reflexarc.vla.adapters.emitted import to_emitted
from reflexarc.wire import geometry


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"position_scale": 0.001, "rotation_scale": np.pi / 180, "gripper_closed": 1, "gripper_open": -1},
        {"frame": "tool", "rotation": "euler_xyz", "rotation_scale": 0.5},
        {"space": "joint", "rotation_scale": np.pi / 180, "gripper_closed": 100, "gripper_open": 0},
    ],
)
def test_there_and_back(told: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    pose = geometry.pose(random.normal(size=3), geometry.exp(random.normal(size=3)))
    actions = np.concatenate([random.uniform(-0.5, 0.5, (4, 6)), random.uniform(0, 1, (4, 1))], axis=1)
    convention = ActionConvention(**told)
    emitted = to_emitted(actions, convention, pose)
    np.testing.assert_allclose(to_canonical(emitted, convention, pose), actions, atol=1e-9)
